"""The faults of a run: what is done to operators, to their way to the API server, to nodes and runtimes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

from tests.support.api import Api
from tests.support.proxy import Call, Match, Proxy, matching

from .cluster import Components
from .deeds import Deeds
from .operators import Operators
from .plan import Step
from .runtimes import Runtimes

FAKE = "kwok.x-k8s.io/node"


class Faults:
    """Plays the faults of a plan."""

    def __init__(
        self,
        api: Api,
        node: str,
        operators: Operators,
        runtimes: Runtimes | None,
        deeds: Deeds,
        components: Components | None = None,
    ) -> None:
        self.done = 0
        self._components = components
        self._api = api
        self._node = node
        self._operators = operators
        self._runtimes = runtimes
        self._deeds = deeds
        self.steps: dict[str, Callable[..., Awaitable[None]]] = {
            "refuse": self.refuse,
            "lose-answer": self.lose_answer,
            "slow": self.slow,
            "late-answers": self.late_answers,
            "cut": self.cut,
            "tear": self.tear,
            "expire": self.expire,
            "stall": self.stall,
            "stale": self.stale,
            "away": self.away,
            "kill": self.kill,
            "kill-at": self.kill_at,
            "freeze": self.freeze,
            "terminate": self.terminate,
            "lose-node": self.lose_node,
            "lose-runtimes": self.lose_runtimes,
            "component": self.component,
            "etcd-full": self.etcd_full,
        }

    async def do(self, step: Step) -> None:
        """One step."""
        await self.steps[step.what](**step.args)
        self.done += 1

    async def calm(self) -> None:
        """End all of them."""
        self._operators.calm()
        if self._components is not None:
            await self._components.calm(self._api)
            # What was held back arrives about now.
            self._deeds.blackouts = [(began, time.monotonic() + 2) for began, _ in self._deeds.blackouts]
        await self._node_is(back=True)

    # ---- the way to the API server -----------------------------------------------------

    async def refuse(
        self, operator: int | str, code: int, verb: str, resource: str, times: int, after: int | None
    ) -> None:
        """Errors instead of answers."""
        reason = {409: "Conflict", 429: "TooManyRequests"}.get(code, "Injected")
        match = _writes(verb, resource)
        self._proxy(operator).refuse(match, code, times=times, retry_after=after, reason=reason)

    async def lose_answer(self, operator: int | str, verb: str, resource: str, times: int) -> None:
        """Writes that are done while whoever asked never hears of it."""
        self._proxy(operator).lose_answers(_writes(verb, resource), times)

    async def slow(self, operator: int | str, delay: float, seconds: float) -> None:
        """Latency before the API server."""
        rule = self._proxy(operator).delay(lambda call: call.verb != "watch", delay)
        await asyncio.sleep(seconds)
        rule.times = 0

    async def late_answers(self, operator: int | str, delay: float, seconds: float) -> None:
        """Latency behind it: the watch is faster than the answer."""
        proxy = self._proxy(operator)
        proxy.delay_answers(lambda call: call.writes, delay)
        await asyncio.sleep(seconds)
        proxy.delay_answers(lambda call: False, 0)

    async def cut(self, operator: int | str, resource: str) -> None:
        """Watches break."""
        self._proxy(operator).cut_watches(resource)

    async def tear(self, operator: int | str, resource: str) -> None:
        """Watches break in the middle of a line."""
        self._proxy(operator).tear_watches(resource)

    async def expire(self, operator: int | str, times: int) -> None:
        """Watches break, and their version is too old when they come back."""
        proxy = self._proxy(operator)
        proxy.expire_watches(times)
        proxy.cut_watches()

    async def stall(self, operator: int | str, resource: str, seconds: float) -> None:
        """Watches are open and silent."""
        proxy = self._proxy(operator)
        proxy.stall_watches(resource)
        await asyncio.sleep(seconds)
        proxy.unstall()

    async def stale(self, operator: int | str, seconds: float) -> None:
        """Lists are answered as they were before."""
        proxy = self._proxy(operator)
        proxy.stale_lists(on=True)
        await asyncio.sleep(seconds)
        proxy.stale_lists(on=False)

    async def away(self, operator: int | str, seconds: float) -> None:
        """The API server cannot be reached at all."""
        proxy = self._proxy(operator)
        rule = proxy.refuse(lambda call: True, 503, times=-1)
        proxy.cut_watches()
        await asyncio.sleep(seconds)
        rule.times = 0

    # ---- processes ---------------------------------------------------------------------

    async def kill(self, operator: int | str) -> None:
        """SIGKILL."""
        self._operators.which(operator).signal(signal.SIGKILL)

    async def kill_at(self, operator: int | str, when: str, verb: str, resource: str) -> None:
        """SIGKILL right before or after a write."""
        replica = self._operators.which(operator)
        replica.proxy.kill_at(matching(verb, resource), when, lambda: replica.signal(signal.SIGKILL))

    async def freeze(self, operator: int | str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        replica = self._operators.which(operator)
        replica.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        replica.signal(signal.SIGCONT)

    async def terminate(self, operator: int | str) -> None:
        """SIGTERM."""
        self._operators.which(operator).signal(signal.SIGTERM)

    # ---- nodes -------------------------------------------------------------------------

    async def lose_node(self, seconds: float) -> None:
        """The node's kubelet falls silent: nothing starts there, nothing ends, pods keep their last status."""
        began = time.monotonic()
        self._deeds.outages.append((began, began + seconds))
        await self._node_is(back=False)
        await asyncio.sleep(seconds)
        await self._node_is(back=True)

    async def lose_runtimes(self, seconds: float) -> None:
        """No runtime answers: who uses them is unknown."""
        if self._runtimes is not None:
            await self._runtimes.away(seconds)

    # ---- the cluster -------------------------------------------------------------------

    async def component(self, name: str, how: str, seconds: float) -> None:
        """A component of the cluster is killed or frozen for a while."""
        if self._components is not None:
            self._blackout(seconds)
            await self._components.fail(name, how, seconds)

    async def etcd_full(self, seconds: float) -> None:
        """Nothing can be written."""
        if self._components is not None:
            self._blackout(seconds)
            await self._components.disk_full(seconds)

    def _blackout(self, seconds: float) -> None:
        began = time.monotonic()
        self._deeds.blackouts.append((began, began + seconds))

    async def _node_is(self, *, back: bool) -> None:
        # Without the annotation kwok leaves the node alone; with it the node is Ready at once.
        mark = {"metadata": {"annotations": {FAKE: "fake" if back else None}}}
        await self._api.patch("nodes", "", self._node, mark)
        if back:
            return
        node = await self._api.get("nodes", "", self._node) or {}
        conditions = node.get("status", {}).get("conditions", [])
        for condition in conditions:
            if condition["type"] == "Ready":
                condition |= {"status": "Unknown", "reason": "NodeStatusUnknown", "message": "chaos"}
        await self._api.patch("nodes", "", self._node, {"status": {"conditions": conditions}}, "status")

    def _proxy(self, operator: int | str) -> Proxy:
        return self._operators.which(operator).proxy


def _writes(verb: str, resource: str) -> Match:
    """Requests that a fault picks: writes but events; of all verbs where none is named, lists and gets, too."""

    def match(call: Call) -> bool:
        if call.resource in ("events", "leases") or call.verb == "watch":
            return False
        return verb in ("", call.verb) and resource in ("", call.resource)

    return match
