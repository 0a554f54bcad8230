"""Do an avatar and its speech engine start side by side? Cold starts on a real kubelet, each alone and both together.

    python -m bench.tts_start --kubeconfig … [--rounds 5] [--load-seconds 0]

Needs the chart installed in --namespace with its sample avatars, and nothing of it running. Figures are medians of
seconds from the request to the condition that says done: Ready of the instance, Serving of the engine; and how much of
all cores was busy meanwhile. The reference programs load no model: they are up as soon as they have computed enough,
and two of them side by side on two cores wait for each other. --load-seconds lets both wait that long before they
start, as those with a model do (a real CosyVoice or MuseTalk takes 10 s and more).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from pathlib import Path

from tests.support.api import GROUP, Api, Json, until

ENGINE = "cosyvoice"
# The images hold Python and no shell.
LATE = "import runpy, sys, time; time.sleep({}); sys.argv[0] = ''; runpy.run_module('{}', run_name='__main__')"
COMPONENT = "?labelSelector=app.kubernetes.io/component%3Davatar-runtime"
SPEECH = f"?labelSelector={GROUP}%2Ftts-engine%3D{ENGINE}"
LIMIT_SECONDS = 120


class Place:
    """One namespace with the chart in it."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def pool(self, name: str, spec: Json) -> None:
        """Make an AvatarPool."""
        await self.create("avatarpools", "AvatarPool", name, spec)

    async def create(self, plural: str, kind: str, name: str, spec: Json) -> None:
        """Make an object of ours."""
        body = {"apiVersion": f"{GROUP}/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        await self._api.create(plural, self._namespace, body)

    async def spec(self, plural: str, name: str) -> Json:
        """The spec of an object that must be there."""
        found = await self._api.get(plural, self._namespace, name)
        assert found is not None, f"there is no {plural}/{name} in {self._namespace}: is the chart installed there?"
        return dict(found["spec"])

    async def engine(self, **spec: object) -> None:
        """Change the engine."""
        await self._api.patch("ttsengines", self._namespace, ENGINE, {"spec": spec})

    async def wait(self, *wanted: tuple[str, str, str]) -> tuple[float, float]:
        """Seconds until all of these conditions (resource, name, type) are True, and the share of all cores busy."""
        began, work = time.monotonic(), busy_seconds()
        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.gather(*(self._is_true(*one) for one in wanted))
        took = time.monotonic() - began
        return took, (busy_seconds() - work) / took / (os.cpu_count() or 1)

    async def _is_true(self, plural: str, name: str, kind: str) -> None:
        # By watch: one who asked again and again would take the very cores that are measured.
        async for event in self._api.watch(plural, self._namespace):
            found = event["object"]
            conditions = found.get("status", {}).get("conditions", [])
            if found["metadata"]["name"] == name and any(
                c["type"] == kind and c["status"] == "True" for c in conditions
            ):
                return

    async def nothing_runs(self) -> None:
        """Stop all, and wait until no pod of an avatar or of the engine is left, and all is quiet."""
        await self._api.delete("avatarinstances", self._namespace, "bench")
        await self.engine(minReplicas=0, idleTimeoutSeconds=1)

        async def pods() -> int:
            found = [await self._api.list("pods", self._namespace, query) for query in (COMPONENT, SPEECH)]
            return sum(map(len, found))

        await until("no pod being left", pods, lambda n: n == 0, LIMIT_SECONDS, 0.5)
        await asyncio.sleep(2)

    async def remove(self, *pools: str) -> None:
        """Delete AvatarPools."""
        for name in pools:
            await self._api.delete("avatarpools", self._namespace, name)


def busy_seconds() -> float:
    """Seconds that all cores together have worked since the machine was started (/proc/stat)."""
    user, nice, system, _, _, irq, softirq, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")


def late(module: str, seconds: float) -> list[str]:
    """The command of a program that takes ``seconds`` before it does anything; [] = as it is."""
    return ["python3", "-c", LATE.format(seconds, module)] if seconds else []


async def measure(place: Place, rounds: int, load: float) -> dict[str, list[tuple[float, float]]]:
    """Seconds and share of busy cores, per round: each alone, and both."""
    figures: dict[str, list[tuple[float, float]]] = {"avatar alone": [], "engine alone": [], "both": []}
    pool = await place.spec("avatarpools", "default")
    before = (await place.spec("ttsengines", ENGINE)).get("command", [])
    if load:
        pool["runtime"]["command"] = late("avatar_runtime", load)
    quiet = {**pool, "ports": {"base": 8990, "count": 2}, "maxInstances": 2}
    await place.pool("quiet", {**quiet, "tts": {"url": "http://nobody.invalid:5002"}})
    await place.pool("loud", {**pool, "ports": {"base": 8980, "count": 2}, "maxInstances": 2})
    await place.engine(command=late("avatar_tts", load))
    one = {"avatarName": "ada", "poolRef": "quiet"}
    both = {"avatarName": "ada", "poolRef": "loud", "tts": {"engine": ENGINE}}
    ready = ("avatarinstances", "bench", "Ready")
    try:
        for _ in range(rounds):
            await place.nothing_runs()
            await place.create("avatarinstances", "AvatarInstance", "bench", one)
            figures["avatar alone"].append(await place.wait(ready))
            await place.nothing_runs()
            await place.engine(minReplicas=1)
            figures["engine alone"].append(await place.wait(("ttsengines", ENGINE, "Serving")))
            await place.nothing_runs()
            await place.create("avatarinstances", "AvatarInstance", "bench", both)
            figures["both"].append(await place.wait(ready, ("avatarinstances", "bench", "TTSReady")))
            print(*(f"{name} {values[-1][0]:.2f} s" for name, values in figures.items()), sep="   ", flush=True)
        await place.nothing_runs()
    finally:
        await place.remove("quiet", "loud")
        await place.engine(command=before)
    return figures


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", default="avatars")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--load-seconds", type=float, default=0)
    given = parser.parse_args()
    async with Api(given.kubeconfig) as api:
        figures = await measure(Place(api, given.namespace), given.rounds, given.load_seconds)
    medians = {name: statistics.median(seconds for seconds, _ in values) for name, values in figures.items()}
    busy = {name: statistics.median(share for _, share in values) for name, values in figures.items()}
    slower = max(medians["avatar alone"], medians["engine alone"])
    print(*(f"{name}: {value:.2f} s (cores {busy[name]:.0%} busy)" for name, value in medians.items()), sep="   ")
    print(f"both over the slower of the two: {medians['both'] / slower:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
