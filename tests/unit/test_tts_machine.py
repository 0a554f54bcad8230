"""Hypothesis plays users, kubelets and clumsy hands against the plan of speech engines."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from avatar_operator.domain import tts_objects
from avatar_operator.domain.names import ANNOTATION_TEMPLATE
from avatar_operator.domain.resources import (
    ContainerState,
    ContainerStatus,
    Meta,
    Pod,
    PodStatus,
    Running,
    Service,
    ServiceSpec,
)
from avatar_operator.domain.tts import Deployment, DeploymentSpec, TtsEngine, TtsStatus
from avatar_operator.domain.tts_plan import plan
from avatar_operator.domain.tts_view import (
    CreateDeployment,
    CreateTtsService,
    EngineView,
    PatchDeployment,
    PatchTtsService,
    SayEngine,
    TtsAction,
    TtsHints,
    TtsKey,
)
from tests.unit.builders import NAMESPACE, NOW, condition
from tests.unit.tts_builders import engine

IDLE, STARTUP, MAX_PASSES = 60, 30, 12
NAMES = ["cosyvoice", "tacotron", "edgetts"]
WAITS = [0.5, 3, 11, 31, 61, 200]


@dataclass
class World:
    """What one engine has of the cluster."""

    engine: TtsEngine
    deployment: Deployment | None = None
    service: Service | None = None
    speaker: str = ""
    pods: dict[str, Pod] = field(default_factory=dict)
    users: int = 0
    broken: bool = False
    hints: TtsHints = field(default_factory=TtsHints)
    used_at: datetime = NOW


class Engines(RuleBasedStateMachine):
    """Two engines that fall back on a third, which falls back on nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.count = 0
        self.down = self.stalled = False
        times = {"idle_timeout_seconds": IDLE, "startup_timeout_seconds": STARTUP}
        self.all = {
            name: World(engine(name, fallback="" if name == "edgetts" else "edgetts", max_replicas=2, **times))
            for name in NAMES
        }
        self.settle()

    # ---- the operator ----------------------------------------------------------------

    def view(self, name: str) -> EngineView:
        one = self.all[name]
        engines = tuple(w.engine for w in self.all.values())
        covers = sum(
            w.users
            for w in self.all.values()
            if w.engine.status.phase == "Fallback" and w.engine.status.fallback == name
        )
        if one.users or covers:
            one.used_at = self.now
        return EngineView(
            TtsKey(NAMESPACE, name),
            self.now,
            one.engine,
            one.deployment,
            one.service,
            tuple(one.pods.values()),
            one.users,
            covers,
            engines,
            hints=one.hints,
        )

    def settle(self) -> None:
        """Plan and act for all, until nobody wants anything."""
        for _ in range(MAX_PASSES):
            busy = False
            for name in NAMES:
                for action in plan(self.view(name)).actions:
                    busy = True
                    self.act(self.all[name], action)
            if not busy:
                return
        raise AssertionError(f"the plans do not settle: {[plan(self.view(n)).actions for n in NAMES]}")

    def act(self, one: World, action: TtsAction) -> None:
        match action:
            case CreateDeployment(body):
                assert one.deployment is None
                one.deployment = Deployment(metadata=self.meta(body), spec=DeploymentSpec(replicas=replicas(body)))
            case PatchDeployment(deployment, operations):
                assert one.deployment is deployment
                changed = {op["path"]: op["value"] for op in operations}
                count = changed.get("/spec/replicas", deployment.spec.replicas)
                if count == 0:
                    idle = (self.now - one.used_at).total_seconds()
                    assert idle >= IDLE, f"stopped after {idle} s without use"
                one.deployment = msgspec.structs.replace(deployment, spec=DeploymentSpec(replicas=count))
            case CreateTtsService(body):
                assert one.service is None
                one.service, one.speaker = Service(metadata=self.meta(body), spec=leads(body)), speaker(body)
            case PatchTtsService(known, body):
                assert one.service is known
                annotations = {**known.metadata.annotations, **body["metadata"]["annotations"]}
                changed_meta = msgspec.structs.replace(known.metadata, annotations=annotations)
                one.service = Service(metadata=changed_meta, spec=leads(body))
                one.speaker = speaker(body)
            case SayEngine(known, status):
                assert known is one.engine
                merged = {**msgspec.to_builtins(known.status), **status}
                kept = {key: value for key, value in merged.items() if value is not None}
                one.engine = msgspec.structs.replace(known, status=msgspec.convert(kept, TtsStatus))
                one.hints = TtsHints(said_at=self.now)

    def meta(self, body: dict[str, Any]) -> Meta:
        self.count += 1
        made = body["metadata"]
        return Meta(
            name=made["name"],
            namespace=NAMESPACE,
            uid=f"u{self.count}",
            labels=made["labels"],
            annotations=made["annotations"],
        )

    # ---- the cluster -------------------------------------------------------------------

    def kubelet(self) -> None:
        """Deployments get their pods; each pod goes a step on."""
        for one in self.all.values():
            wanted = one.deployment.spec.replicas if one.deployment is not None else 0
            for name in list(one.pods)[wanted:]:
                del one.pods[name]
            while len(one.pods) < wanted:
                self.count += 1
                meta = Meta(name=f"p{self.count}", uid=f"u{self.count}", creation_timestamp=self.now)
                one.pods[meta.name] = Pod(metadata=meta, status=PodStatus(phase="Pending"))
            for name, pod in one.pods.items():
                one.pods[name] = self.step(one, pod)

    def step(self, one: World, pod: Pod) -> Pod:
        started = pod.status.container_statuses
        up = bool(started) and not one.broken
        since = started[0].state if started else ContainerState(running=Running(started_at=self.now))
        status = PodStatus(
            phase="Running",
            pod_ip="192.0.2.1",
            start_time=pod.metadata.creation_timestamp,
            conditions=(condition("Ready", "True" if up else "False", since=self.now),),
            container_statuses=(ContainerStatus(name="tts", ready=up, state=since),),
        )
        return msgspec.structs.replace(pod, status=status)

    # ---- rules -----------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(["cosyvoice", "cosyvoice", "tacotron", "edgetts"]), users=st.sampled_from([0, 1, 1, 1, 15])
    )
    def use(self, name: str, users: int) -> None:
        self.all[name].users = users

    @rule(stalled=st.sampled_from([False, False, True]))
    def nodes_stall(self, stalled: bool) -> None:
        self.stalled = stalled

    @rule(name=st.sampled_from(NAMES), broken=st.booleans())
    def break_or_mend(self, name: str, broken: bool) -> None:
        self.all[name].broken = broken

    @rule(name=st.sampled_from(NAMES), what=st.sampled_from(["pods", "deployment", "service"]))
    def delete_by_hand(self, name: str, what: str) -> None:
        one = self.all[name]
        if what == "pods":
            one.pods.clear()
        elif what == "deployment":
            one.deployment = None
            one.pods.clear()
        else:
            one.service = None

    @rule(seconds=st.sampled_from(WAITS))
    def time_passes(self, seconds: float) -> None:
        for one in self.all.values():
            # Who comes and goes while no operator looks speaks to nobody: avatars get their pods from it, too.
            if one.users and not self.down:
                one.used_at = self.now + timedelta(seconds=seconds)
        self.now += timedelta(seconds=seconds)

    @rule()
    def the_operator_restarts(self) -> None:
        for one in self.all.values():
            one.hints = TtsHints()

    @rule(down=st.sampled_from([False, False, True]))
    def the_operator_goes_or_comes(self, down: bool) -> None:
        self.down = down

    @invariant()
    def the_operator_looks(self) -> None:
        if self.down:
            return
        self.settle()
        if not self.stalled:
            self.kubelet()
            self.settle()
        for name, one in self.all.items():
            self.check(name, one)

    def check(self, name: str, one: World) -> None:
        """What holds whenever the operator has nothing left to do."""
        status, view = one.engine.status, self.view(name)
        used = view.users + view.covers
        there = one.deployment.spec.replicas if one.deployment is not None else 0
        ready = [p for p in one.pods.values() if p.condition("Ready") and p.condition("Ready").status == "True"]  # type: ignore[union-attr]
        assert status.phase in {"Stopped", "Starting", "Ready", "Fallback", "Failed"}
        if used:
            assert there >= 1, f"{name} is used by {used} and has no pod"
            assert status.idle_deadline is None
            assert one.service is not None
        assert there <= 2
        assert (status.phase == "Stopped") == (there == 0)
        if there:
            assert (status.phase == "Ready") == bool(ready)
        assert (status.fallback is not None) == (status.phase == "Fallback")
        if one.service is not None:
            expected = status.fallback or name
            assert one.speaker == expected, f"{name} in {status.phase} leads to {one.speaker}"
        assert name != "edgetts" or status.phase != "Fallback"

    @invariant()
    def nobody_speaks_for_itself(self) -> None:
        for name, one in self.all.items():
            assert one.engine.status.fallback != name

    # ---- in the end ------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Whatever happened: mended and used they speak, unused they stop."""
        for one in self.all.values():
            one.broken, one.users = False, 1
        self.stalled = False
        for _ in range(6):
            self.settle()
            self.kubelet()
            self.now += timedelta(seconds=1)
        self.settle()
        assert {n: w.engine.status.phase for n, w in self.all.items()} == dict.fromkeys(NAMES, "Ready")
        assert {n: w.speaker for n, w in self.all.items()} == {n: n for n in NAMES}
        for one in self.all.values():
            one.users = 0
        for _ in range(4):
            self.settle()
            self.now += timedelta(seconds=IDLE + 1)
        assert {w.engine.status.phase for w in self.all.values()} == {"Stopped"}


def replicas(body: dict[str, Any]) -> int:
    return int(body["spec"]["replicas"])


def leads(body: dict[str, Any]) -> ServiceSpec:
    return msgspec.convert(body["spec"], ServiceSpec)


def speaker(body: dict[str, Any]) -> str:
    """Whose pods a Service's spec leads to; its mark says the same."""
    assert body["metadata"]["annotations"][ANNOTATION_TEMPLATE]
    name = body["spec"]["selector"]["avatars.virtualtutor.io/tts-engine"]
    assert body["spec"]["selector"] == tts_objects.selector(name)
    return str(name)


TestEngines = Engines.TestCase
TestEngines.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
