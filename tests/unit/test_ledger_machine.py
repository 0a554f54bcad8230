"""Hypothesis plays users, pods, agents, other people's processes, slow watches and crashes against the ledger.

Two operators, each for its own instances, share the GPUs and an API server of a few lines. Each has its own GpuIndex,
fed by watches that lag as they like, and follows the protocol of the design: reserve, write the claim, list all claims
of that GPU, and only then make the pod or take the claim back. What is right is worked out here from what the server
holds and what the agents measured, with none of the ledger's sums. MiB.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from avatar_operator.controller.gpus import GpuIndex
from avatar_operator.domain.gpunode import GpuNode, GpuNodeStatus, GpuReport, Memory, Node, NodeStatus, PodMemory
from avatar_operator.domain.ledger import Reservation
from avatar_operator.domain.placement import Need, Placement
from avatar_operator.domain.resources import Condition, Gpu, Pool
from tests.unit.builders import NOW, meta, pool

NODE, SPACE = "gpu-a", "live"
TOTALS = {"GPU-0": 10000, "GPU-1": 12000}
NEEDS = [Need(3000, 0), Need(4000, 5000), Need(2000, 6000), Need(9000, 0)]
NAMES = [f"avatar-{8615 + n}" for n in range(7)]
HEARTBEAT = 2
RELEASE = timedelta(seconds=3)


@dataclass
class Claim:
    """A Service as the server has it."""

    name: str
    gpu: str
    mib: int
    uid: str


@dataclass
class RunningPod:
    """A pod, or what is left of one: ``gone`` pods hold memory until their processes end."""

    name: str
    gpu: str
    mib: int
    uid: str
    share: int
    used: int = 0
    ready: datetime | None = None


@dataclass(frozen=True)
class Measured:
    """What an agent measured of one GPU, with the truth that it cannot tell: ``external``."""

    at: datetime
    free: int
    external: int
    pods: dict[str, int]


@dataclass(frozen=True)
class Told:
    """One watch event. ``item`` None = the object of that name and UID is gone."""

    version: int
    name: str
    uid: str
    item: Claim | RunningPod | GpuNode | None
    measured: dict[str, Measured] = field(default_factory=dict)


class Operator:
    """One process: what it knows, and what it is about to write."""

    def __init__(self, name: str, serves: list[str]) -> None:
        self.name = name
        self.serves = serves
        self.index = GpuIndex()
        self.index.take_node(Node(metadata=meta(NODE), status=NodeStatus(conditions=(Condition("Ready", "True"),))))
        self.inbox: dict[str, deque[Told]] = {"Service": deque(), "Pod": deque(), "GPUNode": deque()}
        self.claims: dict[str, Claim] = {}
        self.pods: dict[str, RunningPod] = {}
        self.flying: dict[str, Placement] = {}
        # By name, the UID of the claim that everything was found to fit with (or not).
        self.confirmed: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.seen: dict[str, Measured] = {}
        self._versions: dict[tuple[str, str], int] = defaultdict(int)

    def hear(self, kind: str, now: datetime) -> None:
        """The next event of a watch, if there is one."""
        if self.inbox[kind]:
            self.take(kind, self.inbox[kind].popleft(), now)

    def take(self, kind: str, told: Told, now: datetime) -> None:
        """An event, or the answer to an own write. An older state never replaces a newer one."""
        if told.version <= self._versions[kind, told.name]:
            return
        self._versions[kind, told.name] = told.version
        known: dict[str, Claim] | dict[str, RunningPod] = self.claims if kind == "Service" else self.pods
        if isinstance(told.item, GpuNode):
            self.index.take_report(told.item)
            self.seen = told.measured
        elif told.item is None:
            known.pop(told.name, None)
            self.index.let_go(kind, SPACE, told.name, now)
        elif isinstance(told.item, Claim):
            self.claims[told.name] = told.item
            self.index.hold("Service", Reservation(SPACE, told.name, told.item.gpu, NODE, told.item.mib), now)
        else:
            item = told.item
            self.pods[told.name] = item
            held = Reservation(SPACE, told.name, item.gpu, NODE, item.mib, item.uid, item.ready)
            self.index.hold("Pod", held, now)


class TwoOperators(RuleBasedStateMachine):
    """One node, two GPUs, seven names."""

    @initialize(
        policy=st.sampled_from(["PrimaryFirst", "MostFree", "BinPack"]),
        known=st.sampled_from([True, True, False]),
        needs=st.lists(st.sampled_from(NEEDS), min_size=len(NAMES), max_size=len(NAMES)),
        crowd=st.integers(0, len(NAMES)),
    )
    def begin(self, policy: str, known: bool, needs: list[Need], crowd: int) -> None:
        self.now = NOW
        self.version = 0
        self.pool: Pool = pool(gpu=Gpu(mode="VisibleDevices", policy=policy))
        self.processes_known = known
        self.external = dict.fromkeys(TOTALS, 0)
        self.claims: dict[str, Claim] = {}
        self.pods: dict[str, RunningPod] = {}
        self.leaving: list[RunningPod] = []
        self.needs = dict(zip(NAMES, needs, strict=True))
        self.wanted: set[str] = set(NAMES[:crowd])
        # Requests whose sender has died.
        self.ghosts: list[Claim] = []
        self.report: Told | None = None
        self.operators = [Operator("A", NAMES[::2]), Operator("B", NAMES[1::2])]
        self.agent_reports()
        for one in self.operators:
            one.hear("GPUNode", self.now)

    # ---- people, processes and time ----------------------------------------------------

    @rule(name=st.sampled_from(NAMES))
    def user_wants(self, name: str) -> None:
        self.wanted.add(name)

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def user_leaves(self, data: st.DataObject) -> None:
        self.wanted.remove(data.draw(st.sampled_from(sorted(self.wanted))))

    @rule(gpu=st.sampled_from(sorted(TOTALS)), mib=st.sampled_from([0, 0, 1000, 3000, 7000]))
    def others_use(self, gpu: str, mib: int) -> None:
        """An allocation that does not fit fails."""
        self.external[gpu] = min(mib, TOTALS[gpu] - self._ours(gpu))

    @precondition(lambda self: self.pods)
    @rule(data=st.data(), part=st.sampled_from([0.3, 1.0, 1.0]))
    def pod_loads(self, data: st.DataObject, part: float) -> None:
        self._load(self.pods[data.draw(st.sampled_from(sorted(self.pods)))], part)

    def _load(self, pod: RunningPod, part: float) -> None:
        room = TOTALS[pod.gpu] - self.external[pod.gpu] - self._ours(pod.gpu) + pod.used
        pod.used = min(max(pod.used, int(pod.share * part)), room)
        if part == 1.0 and pod.ready is None:
            pod.ready = self.now
            self._tell("Pod", pod.name, pod.uid, pod)

    @precondition(lambda self: self.pods)
    @rule(data=st.data())
    def pod_dies(self, data: st.DataObject) -> None:
        self._end_pod(data.draw(st.sampled_from(sorted(self.pods))))

    @precondition(lambda self: self.leaving)
    @rule()
    def processes_end(self) -> None:
        self.leaving.pop(0)

    @rule(seconds=st.sampled_from([0.2, 1, 4, 10]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def agent_reports(self) -> None:
        measured = {}
        gpus = []
        for index, (gpu, total) in enumerate(sorted(TOTALS.items())):
            living = [*self.pods.values(), *self.leaving]
            pods = {p.uid: p.used for p in living if p.gpu == gpu and p.used}
            used = self.external[gpu] + sum(pods.values())
            measured[gpu] = Measured(self.now, total - used, self.external[gpu], pods)
            gpus.append(
                GpuReport(
                    uuid=gpu,
                    index=index,
                    memory=Memory(total_mib=total, used_mib=used, free_mib=total - used),
                    processes_known=self.processes_known,
                    pods=tuple(PodMemory(uid=u, used_mib=m) for u, m in pods.items()) if self.processes_known else (),
                )
            )
        status = GpuNodeStatus(last_report=self.now, heartbeat_seconds=HEARTBEAT, gpus=tuple(gpus))
        self.report = self._tell("GPUNode", NODE, NODE, GpuNode(metadata=meta(NODE), status=status), measured)

    # ---- operators ---------------------------------------------------------------------

    @rule(data=st.data(), kind=st.sampled_from(["Service", "Pod", "GPUNode"]), many=st.booleans())
    def watch_delivers(self, data: st.DataObject, kind: str, many: bool) -> None:
        one = data.draw(st.sampled_from(self.operators))
        for _ in range(len(one.inbox[kind]) if many else 1):
            one.hear(kind, self.now)

    @rule(data=st.data(), many=st.integers(1, 8))
    def operators_work(self, data: st.DataObject, many: int) -> None:
        """Some steps of either operator, in any order."""
        for _ in range(many):
            steps = [step for one in self.operators for step in self._steps(one)]
            if steps:
                step, one, name = data.draw(st.sampled_from(steps))
                step(one, name)

    @rule(place=st.sampled_from([0, 1, None, None, None]))
    def operator_dies(self, place: int | None) -> None:
        """Memory is lost, requests on their way may arrive; the next process begins with what there is."""
        if place is None:
            return
        dead = self.operators[place]
        for name, found in dead.flying.items():
            self.ghosts.append(self._claim_of(name, found))
        born = Operator(f"{dead.name}'", dead.serves)
        if self.report is not None:
            born.take("GPUNode", self.report, self.now)
        for claim in self.claims.values():
            born.take("Service", Told(self.version, claim.name, claim.uid, claim), self.now)
        for pod in self.pods.values():
            born.take("Pod", Told(self.version, pod.name, pod.uid, pod), self.now)
        self.operators[place] = born

    @precondition(lambda self: self.ghosts)
    @rule()
    def ghost_arrives(self) -> None:
        claim = self.ghosts.pop()
        if claim.name not in self.claims:
            self.claims[claim.name] = claim
            self._tell("Service", claim.name, claim.uid, claim)

    # ---- what must hold ----------------------------------------------------------------

    @invariant()
    def nothing_is_reserved_twice(self) -> None:
        """Pods, and claims that are confirmed and whose pod is on its way, fit into their GPU."""
        taken: dict[str, dict[str, int]] = defaultdict(dict)
        for pod in self.pods.values():
            taken[pod.gpu][pod.name] = pod.mib
        for one in self.operators:
            for name, uid in one.confirmed.items():
                if name in one.claims and one.claims[name].uid == uid and name in self.wanted:
                    taken[one.claims[name].gpu][name] = one.claims[name].mib
        for gpu, parts in taken.items():
            assert sum(parts.values()) <= TOTALS[gpu], f"{parts} are reserved on {gpu} of {TOTALS[gpu]}"

    def teardown(self) -> None:
        """When all is heard and done, the books agree with the server, and nobody waits beside a free GPU."""
        if not hasattr(self, "operators"):
            return
        self.leaving.clear()
        while self.ghosts:
            self.ghost_arrives()
        # One after the other: what two do at the same moment is theirs to undo, and was checked above.
        for one in (self.operators[0], self.operators[1], self.operators[0]):
            for _ in range(4):
                self._work(one)
                for pod in self.pods.values():
                    self._load(pod, 1.0)
                self.now += timedelta(seconds=4)
                self.agent_reports()
        for one in self.operators:
            self._hear_all(one)
            for gpu, total in TOTALS.items():
                truth = sum(c.mib for c in self.claims.values() if c.gpu == gpu)
                assert one.index.room(gpu).reserved == truth, f"{one.name} has {one.index.room(gpu)}, truth {truth}"
                assert truth <= total
        assert {*self.claims} == {*self.pods} <= self.wanted
        for name in self.wanted - self.pods.keys():
            for gpu in TOTALS:
                free = self._free(gpu, name)
                assert free < self.needs[name].free, f"{name} waits for {self.needs[name]}, {free} free on {gpu}"

    # ---- what operators do -------------------------------------------------------------

    def _steps(self, one: Operator) -> list[tuple[Callable[[Operator, str], None], Operator, str]]:
        """What an operator can do next."""
        return [
            *((self._claim, one, name) for name in self._can_claim(one)),
            *((self._arrive, one, name) for name in sorted(one.flying)),
            *((self._confirm, one, name) for name in self._can_confirm(one)),
            *((self._go_on, one, name) for name in sorted({*one.refused, *one.confirmed} - {*one.pods})),
            *((self._clean, one, name) for name in self._can_clean(one)),
            *((self._mend, one, name) for name in self._can_mend(one)),
        ]

    def _can_claim(self, one: Operator) -> list[str]:
        wanted = [name for name in one.serves if name in self.wanted]
        return [n for n in wanted if n not in one.claims and n not in one.pods and n not in one.flying]

    def _can_confirm(self, one: Operator) -> list[str]:
        settled = {*one.pods, *one.confirmed, *one.refused}
        return [n for n in one.serves if n in self.wanted and n in one.claims and n not in settled]

    def _can_clean(self, one: Operator) -> list[str]:
        return [n for n in one.serves if n not in self.wanted and (n in one.claims or n in one.pods)]

    def _can_mend(self, one: Operator) -> list[str]:
        return [n for n in one.serves if n in one.pods and n not in one.claims]

    def _claim(self, one: Operator, name: str) -> None:
        need = self.needs[name]
        found = one.index.find(self.pool, need, self.now)
        if not isinstance(found, Placement):
            return
        assert found.mib == need.mib
        self._has_room(one, found.uuid, need, {**one.claims, **one.flying}, name)
        one.flying[name] = found
        one.index.hold("write", Reservation(SPACE, name, found.uuid, NODE, found.mib), self.now)

    def _arrive(self, one: Operator, name: str) -> None:
        found = one.flying.pop(name)
        if name not in self.claims:
            claim = self.claims[name] = self._claim_of(name, found)
            told = self._tell("Service", name, claim.uid, claim)
        else:
            claim = self.claims[name]
            told = Told(self.version, name, claim.uid, claim)
        one.take("Service", told, self.now)
        one.index.let_go("write", SPACE, name, self.now)

    def _confirm(self, one: Operator, name: str) -> None:
        claim, need = one.claims[name], self.needs[name]
        others = [
            Reservation(SPACE, c.name, "", "", c.mib)
            for c in self.claims.values()
            if c.gpu == claim.gpu and c.uid != claim.uid
        ]
        if one.index.free_beside(claim.gpu, others, (SPACE, name), self.now) >= need.free:
            self._has_room(one, claim.gpu, need, self.claims, name)
            one.confirmed[name] = claim.uid
        else:
            one.refused[name] = claim.uid

    def _go_on(self, one: Operator, name: str) -> None:
        """The pod of a claim that is confirmed is made; one that is refused is taken back."""
        claim = one.claims.get(name)
        if name in one.refused:
            if one.refused.pop(name) == (claim and claim.uid):
                self._delete_claim(one, one.claims[name])
            return
        if one.confirmed.pop(name) == (claim and claim.uid) and name in self.wanted and name not in self.pods:
            assert claim is not None
            self.version += 1
            share = {0: claim.mib, 1: claim.mib // 2, 2: claim.mib + 2000}[self.version % 3]
            pod = RunningPod(name, claim.gpu, claim.mib, f"pod-{self.version}", share)
            if not self.processes_known:
                # Where nobody can tell processes apart, a loaded pod is taken to use what it reserved.
                pod.share = claim.mib
            self.pods[name] = pod
            one.take("Pod", self._tell("Pod", name, pod.uid, pod), self.now)

    def _clean(self, one: Operator, name: str) -> None:
        """Delete what nobody wants: the pod, and the claim when the pod's memory is back."""
        if name in one.pods:
            if name in self.pods:
                self._end_pod(name)
            return
        since = one.index.podless_since(SPACE, name)
        if since is None or one.index.processes_gone(SPACE, name) or self.now >= since + RELEASE:
            one.confirmed.pop(name, None)
            self._delete_claim(one, one.claims[name])

    def _delete_claim(self, one: Operator, claim: Claim) -> None:
        if (there := self.claims.get(claim.name)) is not None and there.uid == claim.uid:
            del self.claims[claim.name]
            one.take("Service", self._tell("Service", claim.name, claim.uid, None), self.now)

    def _mend(self, one: Operator, name: str) -> None:
        """A pod without its claim gets it back."""
        pod = one.pods[name]
        if name not in one.flying:
            one.flying[name] = Placement(pod.mib, NODE, pod.gpu)
            self._arrive(one, name)

    def _delete_claim(self, one: Operator, claim: Claim) -> None:
        if (there := self.claims.get(claim.name)) is not None and there.uid == claim.uid:
            del self.claims[claim.name]
            one.take("Service", self._tell("Service", claim.name, claim.uid, None), self.now)
        else:
            one.hear("Service", self.now)

    def _work(self, one: Operator) -> None:
        """Everything that this operator can do now."""
        self._hear_all(one)
        for name in sorted({*one.confirmed, *one.refused} - {*one.pods}):
            self._go_on(one, name)
        for name in self._can_clean(one):
            self._clean(one, name)
        self._hear_all(one)
        for name in self._can_mend(one):
            self._mend(one, name)
        for name in self._can_claim(one):
            self._claim(one, name)
        for name in list(one.flying):
            self._arrive(one, name)
        for name in self._can_confirm(one):
            self._confirm(one, name)
            self._go_on(one, name)
        self._hear_all(one)

    def _hear_all(self, one: Operator) -> None:
        for kind, waiting in one.inbox.items():
            while waiting:
                one.hear(kind, self.now)

    # ---- the truth ---------------------------------------------------------------------

    def _has_room(
        self, one: Operator, gpu: str, need: Need, held: dict[str, Claim] | dict[str, Claim | Placement], name: str
    ) -> None:
        """A decision needs room by what its operator has heard: of the agent, and of others' claims."""
        seen = one.seen[gpu]
        others = {n: c for n, c in held.items() if n != name and (c.uuid if isinstance(c, Placement) else c.gpu) == gpu}
        taken = sum(c.mib for c in others.values())
        free = TOTALS[gpu] - seen.external - taken
        assert free >= need.free, f"{name} needs {need} on {gpu}: {free} free beside {others}, {seen}"
        if self.now >= seen.at + timedelta(seconds=3 * HEARTBEAT):
            return
        uses = {n: seen.pods.get(p.uid, 0) for n, p in one.pods.items()}
        unused = sum(max(0, c.mib - uses.get(n, 0)) for n, c in others.items())
        assert seen.free - unused >= need.free, f"{name} needs {need} on {gpu}: {seen.free} free, {unused} not loaded"

    def _free(self, gpu: str, but: str) -> int:
        taken = sum(c.mib for c in self.claims.values() if c.gpu == gpu and c.name != but)
        unused = sum(
            max(0, c.mib - (self.pods[c.name].used if c.name in self.pods else 0))
            for c in self.claims.values()
            if c.gpu == gpu
        )
        used = self.external[gpu] + self._ours(gpu)
        return min(TOTALS[gpu] - self.external[gpu] - taken, TOTALS[gpu] - used - unused)

    def _ours(self, gpu: str) -> int:
        return sum(p.used for p in (*self.pods.values(), *self.leaving) if p.gpu == gpu)

    def _end_pod(self, name: str) -> None:
        pod = self.pods.pop(name)
        self.leaving.append(pod)
        self._tell("Pod", name, pod.uid, None)

    def _claim_of(self, name: str, found: Placement) -> Claim:
        self.version += 1
        return Claim(name, found.uuid, found.mib, f"claim-{self.version}")

    def _tell(
        self,
        kind: str,
        name: str,
        uid: str,
        item: Claim | RunningPod | GpuNode | None,
        measured: dict[str, Measured] | None = None,
    ) -> Told:
        self.version += 1
        told = Told(self.version, name, uid, item, measured or {})
        for one in self.operators:
            one.inbox[kind].append(told)
        return told


TestTwoOperators = TwoOperators.TestCase
TestTwoOperators.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
