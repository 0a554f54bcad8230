"""Hypothesis plays users, nodes, clients and crashes against plan(); model.py holds the rules of the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from avatar_operator.controller.store import PoolKey
from avatar_operator.domain.actions import Action
from avatar_operator.domain.resources import (
    Instance,
    InstanceIdle,
    InstanceSpec,
    Pod,
    PoolIdle,
    Ports,
    Service,
)
from avatar_operator.domain.resources import (
    Runtime as PoolRuntime,
)
from avatar_operator.domain.view import GroupKey
from tests.unit.builders import avatar, pool
from tests.unit.model import Model, assert_consistent, is_ready

AVATARS = ["Ada", "Bob", "Cy", "Warm", "Late"]
NAMES = [f"i{n}" for n in range(8)]
WAITS = [0.3, 1, 4, 6, 31, 61, 130, 400]


@dataclass
class InFlight:
    """Requests on their way to the API server."""

    pool: PoolKey
    actions: list[Action]


class Life(RuleBasedStateMachine):
    """A pool of two or three ports, five avatars, eight names for instances."""

    def __init__(self) -> None:
        super().__init__()
        self.flying: dict[GroupKey, InFlight] = {}
        self.clients = 0

    @initialize(
        action=st.sampled_from(["Delete", "Sleep"]),
        source=st.sampled_from(["Runtime", "Runtime", "Connections"]),
        idle_seconds=st.booleans(),
    )
    def begin(self, action: str, source: str, idle_seconds: bool) -> None:
        self.source = source
        idle = PoolIdle(timeout_seconds=60, action=action, activity_source=source)
        known = [avatar(a, keep_warm=a == "Warm") for a in AVATARS if a != "Late"]
        self.model = Model(pool(ports=Ports(base=8615, count=3), idle=idle), known, says_idle_seconds=idle_seconds)

    # ---- users ---------------------------------------------------------------------

    @rule(
        name=st.sampled_from(NAMES),
        of=st.sampled_from(AVATARS),
        exclusive=st.sampled_from([False] * 4 + [True]),
        data=st.data(),
    )
    def create_or_delete(self, name: str, of: str, exclusive: bool, data: st.DataObject) -> None:
        if self.model.get(Instance, name) is not None:
            self.model.delete(name)
            return
        idle = data.draw(
            st.sampled_from(
                [InstanceIdle(), InstanceIdle(), InstanceIdle(timeout_seconds=20), InstanceIdle(action="Sleep")]
            )
        )
        self.model.create(name, InstanceSpec(avatar_name=of, exclusive=exclusive, idle=idle))

    @rule(name=st.sampled_from(NAMES), number=st.integers(0, 2))
    def count(self, name: str, number: int) -> None:
        item = self.model.get(Instance, name)
        if item is not None and item.status.connections != number:
            self.model.count_connections(name, number)

    @rule(limit=st.integers(1, 3))
    def change_capacity(self, limit: int) -> None:
        # Claims under way were allowed when they were sent.
        if not self.flying and self.model.pool.spec.max_instances != limit:
            self.model.change_pool(max_instances=limit)

    @rule(tag=st.integers(1, 3))
    def change_image(self, tag: int) -> None:
        self.model.change_pool(runtime=PoolRuntime(image=f"registry.example/runtime:{tag}"))

    @rule()
    def the_late_avatar_comes(self) -> None:
        if avatar("Late").metadata.name not in {a.metadata.name for a in self.model.avatars()}:
            self.model.add_avatar(avatar("Late"))

    # ---- nodes ----------------------------------------------------------------------

    def pick(self, data: st.DataObject, *, ready: bool = False) -> Pod | None:
        pods = [p for p in self.model.all(Pod) if is_ready(p) or not ready]
        return data.draw(st.sampled_from(pods)) if pods else None

    @rule(data=st.data())
    def progress(self, data: st.DataObject) -> None:
        if (pod := self.pick(data)) is not None:
            self.model.progress(pod)

    @rule()
    def all_progress(self) -> None:
        for pod in self.model.all(Pod):
            self.model.progress(pod)

    @rule(data=st.data(), how=st.sampled_from(["evicted", "exit78", "crashloop", "completed", "pull"]))
    def fail(self, data: st.DataObject, how: str) -> None:
        pod = self.pick(data)
        if pod is not None and pod.metadata.deletion_timestamp is None:
            self.model.fail_pod(pod, how)

    @rule(data=st.data())
    def restart_container(self, data: st.DataObject) -> None:
        if (pod := self.pick(data, ready=True)) is not None:
            self.model.restart_container(pod)

    @rule(data=st.data(), by_force=st.booleans())
    def delete_pod(self, data: st.DataObject, by_force: bool) -> None:
        if (pod := self.pick(data)) is not None:
            (self.model.lose_pod if by_force else self.model.end_pod)(pod)

    @rule(data=st.data())
    def delete_claim(self, data: st.DataObject) -> None:
        # Not within the milliseconds in which its pod is on the way.
        if (claims := self.model.all(Service)) and not self.flying:
            self.model.lose_claim(data.draw(st.sampled_from(claims)).metadata.name)

    @rule()
    def collect_garbage(self) -> None:
        self.model.collect_garbage()

    # ---- clients ----------------------------------------------------------------------

    @rule(data=st.data())
    def open_page(self, data: st.DataObject) -> None:
        # Where only status counts, a page that nobody counted is not seen: that is the setting's meaning.
        pod = self.pick(data, ready=True) if self.source == "Runtime" else None
        if pod is not None:
            self.clients += 1
            self.model.open_session(pod, f"s{self.clients}")

    @rule(data=st.data())
    def close_page(self, data: st.DataObject) -> None:
        pod = self.pick(data, ready=True)
        runtime = self.model.runtimes.get(pod.metadata.uid) if pod is not None else None
        sessions = runtime.sessions if runtime is not None else {}
        if pod is not None and sessions:
            self.model.close_session(pod, data.draw(st.sampled_from(sorted(sessions))))

    @rule(data=st.data())
    def reach(self, data: st.DataObject) -> None:
        if (pod := self.pick(data, ready=True)) is not None:
            runtime = self.model.runtimes[pod.metadata.uid]
            runtime.reachable = not runtime.reachable

    # ---- the operator -----------------------------------------------------------------

    @rule(seconds=st.sampled_from(WAITS))
    def pass_time(self, seconds: float) -> None:
        self.model.pass_time(seconds)

    @precondition(lambda self: self.model.queue)
    @rule()
    def work(self) -> None:
        for key in list(self.model.queue):
            if key not in self.flying:
                self.model.reconcile(key)

    @precondition(lambda self: self.model.queue)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        """One plan; its requests land later."""
        keys = [k for k in self.model.queue if isinstance(k, GroupKey) and k not in self.flying]
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        result = self.model.observe(key)
        if result is not None and result.actions:
            self.flying[key] = InFlight(self.model.prepare(key, result.actions), result.actions)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), random=st.randoms(use_true_random=False))
    def land(self, data: st.DataObject, random: Any) -> None:
        key = data.draw(st.sampled_from(sorted(self.flying)))
        sent = self.flying.pop(key)
        for action in random.sample(sent.actions, len(sent.actions)):
            self.model.perform(key, sent.pool, action)
        self.model.queue[key] = None

    @rule(random=st.randoms(use_true_random=False))
    def crash(self, random: Any) -> None:
        """The process is killed: some of its requests have landed, some never will."""
        for key, sent in self.flying.items():
            for action in random.sample(sent.actions, random.randint(0, len(sent.actions))):
                self.model.perform(key, sent.pool, action)
        self.flying.clear()
        self.model.restart()

    def land_all(self) -> None:
        for key, sent in self.flying.items():
            for action in sent.actions:
                self.model.perform(key, sent.pool, action)
            self.model.queue[key] = None
        self.flying.clear()

    @rule(seconds=st.sampled_from([0, 0, 0, 10, 61, 70]))
    def calm(self, seconds: float) -> None:
        """All goes well for a while."""
        self.land_all()
        self.model.settle(seconds)
        assert_consistent(self.model)

    @rule(seconds=st.sampled_from([0, 0, 61]))
    def calm_again(self, seconds: float) -> None:
        # Twice as likely as any trouble: what can go wrong late in a life needs a life.
        self.calm(seconds)

    @rule(lagging=st.booleans(), events=st.integers(1, 3))
    def watch(self, lagging: bool, events: int) -> None:
        self.model.deliver(None if not lagging else events)
        self.model.lagging = lagging

    # ---- what always holds ----------------------------------------------------------------

    @invariant()
    def one_live_pod_a_port(self) -> None:
        ports = [p.metadata.labels["avatars.virtualtutor.io/port"] for p in self.model.all(Pod)]
        assert len(ports) == len(set(ports))

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        model = self.model
        self.land_all()
        for runtime in model.runtimes.values():
            runtime.reachable = True
        # Quiet now, and quiet after every retry that is due within minutes.
        model.settle()
        assert_consistent(model)
        model.settle(400)
        assert_consistent(model)
        # Everybody leaves: only what is kept warm or never could start is left.
        for item in model.all(Instance):
            if item.status.connections:
                model.count_connections(item.metadata.name, 0)
        for pod in model.all(Pod):
            if (found := model.runtimes.get(pod.metadata.uid)) is not None:
                found.sessions.clear()
                found.idle_since = model.now
        model.settle(4000)
        assert_consistent(model)
        for item in model.all(Instance):
            late = item.spec.avatar_name == "Late" and item.status.phase == "Failed"
            waits_behind_warm = item.status.phase == "Pending"
            assert late or waits_behind_warm or item.spec.avatar_name == "Warm" or item.status.phase == "Stopped", item


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
