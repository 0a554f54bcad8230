"""Hypothesis plays users, nodes, clients and crashes against plan(); model.py holds the rules of the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from avatar_operator.controller.keys import PoolKey
from avatar_operator.domain.actions import (
    Action,
    DeleteInstance,
    PatchStatus,
    ProbeActivity,
    SetDraining,
)
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
from tests.unit.model import MAX_PASSES, Model, assert_consistent

AVATARS = ["Ada", "Bob", "Cy", "Warm", "Late"]
NAMES = [f"i{n}" for n in range(8)]
DECISIVE = (DeleteInstance, ProbeActivity, SetDraining)
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
        timers=st.sampled_from([(None, 0)] * 3 + [(25, 0), (200, 0), (None, 150), (25, 90)]),
        crowd=st.lists(st.sampled_from(AVATARS), max_size=5),
    )
    def begin(
        self, action: str, source: str, idle_seconds: bool, timers: tuple[int | None, int], crowd: list[str]
    ) -> None:
        self.source = source
        claim, age = timers
        idle = PoolIdle(
            timeout_seconds=60,
            action=action,
            activity_source=source,
            claim_timeout_seconds=claim,
            max_age_seconds=age,
        )
        known = [avatar(a, keep_warm=a == "Warm") for a in AVATARS if a != "Late"]
        self.model = Model(pool(ports=Ports(base=8615, count=3), idle=idle), known, says_idle_seconds=idle_seconds)
        for name, of in enumerate(crowd):
            self.model.create(NAMES[name], InstanceSpec(avatar_name=of))
        self.model.settle()
        assert_consistent(self.model)

    # ---- users ---------------------------------------------------------------------

    @precondition(lambda self: len(self.model.all(Instance)) < len(NAMES))
    @rule(
        of=st.sampled_from([*AVATARS, "Ada", "Ada"]),
        exclusive=st.sampled_from([False] * 4 + [True]),
        idle=st.sampled_from([InstanceIdle()] * 3 + [InstanceIdle(timeout_seconds=20), InstanceIdle(action="Sleep")]),
    )
    def create(self, of: str, exclusive: bool, idle: InstanceIdle) -> None:
        name = next(n for n in NAMES if self.model.get(Instance, n) is None)
        self.model.create(name, InstanceSpec(avatar_name=of, exclusive=exclusive, idle=idle))

    @precondition(lambda self: self.model.all(Instance))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.model.delete(data.draw(st.sampled_from(self.model.all(Instance))).metadata.name)

    @precondition(lambda self: self.model.all(Instance))
    @rule(data=st.data(), number=st.integers(0, 2))
    def count(self, data: st.DataObject, number: int) -> None:
        item = data.draw(st.sampled_from(self.model.all(Instance)))
        if item.status.connections != number:
            self.model.count_connections(item.metadata.name, number)

    # ---- clients ----------------------------------------------------------------------

    @precondition(lambda self: self.source == "Runtime" and self.model.runtimes)
    @rule(data=st.data())
    def open_page(self, data: st.DataObject) -> None:
        """Where only status counts, a page that nobody counted is not seen: that is the setting's meaning."""
        self.clients += 1
        self.model.open_session(self.pick(data, serving=True), f"s{self.clients}")

    @precondition(lambda self: any(r.sessions for r in self.model.runtimes.values()))
    @rule(data=st.data())
    def close_page(self, data: st.DataObject) -> None:
        open_ones = [
            (p, name)
            for p in self.model.all(Pod)
            if p.metadata.uid in self.model.runtimes
            for name in self.model.runtimes[p.metadata.uid].sessions
        ]
        self.model.close_session(*data.draw(st.sampled_from(open_ones)))

    # ---- administrators -----------------------------------------------------------------

    @rule(what=st.sampled_from(["capacity", "capacity", "avatar", "image"]), number=st.integers(1, 3))
    def administrate(self, what: str, number: int) -> None:
        # Claims under way were allowed when they were sent.
        if what == "capacity" and not self.flying:
            self.model.change_pool(max_instances=number)
        elif what == "image":
            self.model.change_pool(runtime=PoolRuntime(image=f"registry.example/runtime:{number}"))
        elif what == "avatar" and len(self.model.avatars()) < len(AVATARS):
            self.model.add_avatar(avatar("Late"))

    # ---- nodes ----------------------------------------------------------------------

    def pick(self, data: st.DataObject, *, serving: bool = False) -> Pod:
        pods = [p for p in self.model.all(Pod) if not serving or p.metadata.uid in self.model.runtimes]
        return data.draw(st.sampled_from(pods))

    @precondition(lambda self: self.model.all(Pod))
    @rule(data=st.data())
    def progress(self, data: st.DataObject) -> None:
        self.model.progress(self.pick(data))

    @precondition(lambda self: self.model.all(Pod))
    @rule(data=st.data(), how=st.sampled_from(["evicted", "exit78", "crashloop", "completed", "pull"]))
    def fail(self, data: st.DataObject, how: str) -> None:
        pod = self.pick(data)
        if pod.metadata.deletion_timestamp is None:
            self.model.fail_pod(pod, how)

    @precondition(lambda self: self.model.runtimes)
    @rule(data=st.data(), crashes=st.booleans())
    def trouble_a_runtime(self, data: st.DataObject, crashes: bool) -> None:
        pod = self.pick(data, serving=True)
        if crashes:
            self.model.restart_container(pod)
        else:
            runtime = self.model.runtimes[pod.metadata.uid]
            runtime.reachable = not runtime.reachable

    @precondition(lambda self: self.model.all(Pod))
    @rule(data=st.data(), how=st.sampled_from(["delete", "force", "claim", "garbage"]))
    def take_away(self, data: st.DataObject, how: str) -> None:
        if how == "garbage":
            self.model.collect_garbage()
        elif how == "claim":
            # Not within the milliseconds in which its pod is on the way.
            if (claims := self.model.all(Service)) and not self.flying:
                self.model.lose_claim(data.draw(st.sampled_from(claims)).metadata.name)
        else:
            pod = self.pick(data)
            (self.model.lose_pod if how == "force" else self.model.end_pod)(pod)

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
    @rule(data=st.data(), random=st.randoms(use_true_random=True))
    def land(self, data: st.DataObject, random: Any) -> None:
        key = data.draw(st.sampled_from(sorted(self.flying)))
        sent = self.flying.pop(key)
        for action in random.sample(sent.actions, len(sent.actions)):
            self.model.perform(key, sent.pool, action)
        self.model.queue[key] = None

    @rule(random=st.randoms(use_true_random=True))
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

    @rule(seconds=st.sampled_from([0, 10, 61, 61, 130]), random=st.randoms(use_true_random=True))
    def busy(self, seconds: float, random: Any) -> None:
        """Clients come and go between one request of the operator and the next."""
        self.land_all()
        left = 4

        def meddle(action: Action) -> None:
            nonlocal left
            if left and random.random() < (0.5 if isinstance(action, DECISIVE) else 0.1):
                left -= 1
                self.meddle(action, random)

        # Each of them may begin a decision anew.
        self.model.meddle, self.model.patience = meddle, (left + 1) * MAX_PASSES
        self.model.settle(seconds)
        self.model.meddle, self.model.patience = lambda action: None, MAX_PASSES
        self.model.settle()
        assert_consistent(self.model)

    def meddle(self, action: Action, random: Any) -> None:
        """A client does something, by choice where the operator is just about to act."""
        instances = self.model.all(Instance)
        pods = [p for p in self.model.all(Pod) if p.metadata.uid in self.model.runtimes]
        if isinstance(action, (SetDraining, ProbeActivity)) and action.pod.metadata.uid in self.model.runtimes:
            pods = [action.pod]
        elif isinstance(action, (DeleteInstance, PatchStatus)) and random.random() < 0.5:
            instances = [i for i in instances if i.metadata.uid == action.instance.metadata.uid]
        runtime = self.model.runtimes[random.choice(pods).metadata.uid] if pods else None
        if instances and (runtime is None or self.source != "Runtime" or random.random() < 0.3):
            one = random.choice(instances)
            self.model.count_connections(one.metadata.name, 1 - min(1, one.status.connections))
        elif runtime is not None and not isinstance(action, DeleteInstance) and random.random() < 0.5:
            runtime.reachable = not runtime.reachable
        elif runtime is not None and runtime.sessions and random.random() < 0.5:
            runtime.sessions.popitem()
            runtime.idle_since = self.model.now
        elif pods and self.source == "Runtime":
            self.clients += 1
            self.model.open_session(random.choice(pods), f"s{self.clients}")

    @precondition(lambda self: self.model.queue)
    @rule()
    def calm_at_once(self) -> None:
        """Twice as likely as any trouble: what can go wrong late in a life needs a life."""
        self.calm(0)

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
