"""What happens in a run, all of it drawn from one seed before anything begins.

A plan is data: it can be printed, compared and played again. Names stand for objects (``i3``, ``Ada``) whether or not
they exist when a step comes: a step that finds nothing to do does nothing. Times are seconds from the run's beginning.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

Args = dict[str, Any]
Rng = random.Random

INSTANCES = tuple(f"i{number}" for number in range(9))
AVATARS = ("Ada", "Bob", "Cy", "Dee")
# An avatar that most instances of it wait for in vain, until a step creates it.
LATE = "Late"
WRITTEN = ("pods", "services", "avatarinstances")
# In the order in which they can be started.
COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "containerd",
    "kubelet",
    "kwok",
)
# The operator's writes that matter: killed before or after one of them, nothing may be left over.
WRITES = (
    ("create", "services"),
    ("create", "pods"),
    ("patch", "avatarinstances"),
    ("patch", "pods"),
    ("delete", "avatarinstances"),
    ("delete", "pods"),
    ("delete", "services"),
)


@dataclass(frozen=True)
class PoolPlan:
    """An AvatarPool at the beginning."""

    name: str
    base: int
    count: int
    capacity: int
    idle: int
    action: str
    source: str
    leak: int
    queue_timeout: int

    @property
    def ports(self) -> range:
        """Its port range."""
        return range(self.base, self.base + self.count)


@dataclass(frozen=True)
class Step:
    """One thing that is done: by a user (``user``) or to the machinery (a fault)."""

    at: float
    user: bool
    what: str
    args: Args

    def __str__(self) -> str:
        words = " ".join(f"{name}={value}" for name, value in self.args.items())
        return f"{self.at:6.2f} {'user ' if self.user else 'FAULT'} {self.what} {words}".rstrip()


@dataclass(frozen=True)
class Plan:
    """A whole run. ``skews``: seconds by which each operator's clock is wrong."""

    seed: int
    seconds: float
    skews: tuple[float, ...]
    gpus: bool
    pools: tuple[PoolPlan, ...]
    steps: tuple[Step, ...]
    cluster: bool = False

    @property
    def operators(self) -> int:
        """How many there are."""
        return len(self.skews)

    def __str__(self) -> str:
        head = [
            f"seed {self.seed}: {self.seconds:.1f} s, {self.operators} operator(s), clocks wrong by "
            f"{', '.join(f'{s:+.1f}' for s in self.skews)} s, {'with' if self.gpus else 'without'} GPUs"
        ]
        pools = [f"pool {' '.join(f'{name}={value}' for name, value in asdict(p).items())}" for p in self.pools]
        return "\n".join([*head, *pools, *map(str, self.steps)])


def draw(seed: int, *, seconds: float | None = None, skews: bool = True, cluster: bool = False) -> Plan:
    """The plan of a seed.

    ``seconds`` overrides how long it lasts, ``skews`` False leaves all clocks right, ``cluster`` adds faults of the
    cluster's own components and leaves out the GPUs, whose agents are played without such faults in mind.
    """
    rng = Rng(seed)
    length = rng.uniform(8, 12)
    length = seconds if seconds is not None else length
    operators = rng.choice((1, 1, 2))
    wrong = tuple(round(rng.uniform(-4, 4), 1) if rng.random() < 0.25 else 0.0 for _ in range(operators))
    gpus = rng.random() < 0.25
    pools = _pools(rng, gpus)
    steps = [*_crowd(rng, pools), *_users(rng, pools, length, gpus), *_faults(rng, operators, length)]
    if cluster:
        steps += _cluster_faults(Rng(f"{seed}/cluster"), length)
    return Plan(
        seed,
        round(length, 2),
        wrong if skews else (0.0,) * operators,
        gpus and not cluster,
        pools,
        tuple(sorted(steps, key=lambda step: step.at)),
        cluster,
    )


def _pools(rng: Rng, gpus: bool) -> tuple[PoolPlan, ...]:
    """One or two; the second one's ports may overlap the first one's."""
    source = rng.choice(("Connections", "Runtime"))
    made: list[PoolPlan] = []
    for name in ("default", "second")[: 1 if gpus else rng.choice((1, 1, 2))]:
        count = rng.randint(2, 5)
        made.append(
            PoolPlan(
                name,
                base=8615 if not made else rng.choice((8617, 8640)),
                count=count,
                capacity=rng.randint(max(1, count - 2), count),
                idle=rng.choice((0, 1, 1, 2)),
                action=rng.choice(("Delete", "Delete", "Sleep")),
                source=source,
                leak=rng.choice((300, 3)),
                queue_timeout=rng.choice((0, 0, 5)),
            )
        )
    return tuple(made)


# ---- users -------------------------------------------------------------------------------


def _create(rng: Rng, pools: tuple[PoolPlan, ...], name: str | None = None) -> Args:
    spec: Args = {"name": name or rng.choice(INSTANCES), "avatar": rng.choice((*AVATARS, "Ada", "Ada", LATE))}
    if len(pools) > 1 and rng.random() < 0.4:
        spec["pool"] = pools[1].name
    if rng.random() < 0.2:
        spec["exclusive"] = True
    if rng.random() < 0.5:
        spec["idle"] = rng.choice((0, 0, 1, 2, 3))
    if rng.random() < 0.25:
        spec["action"] = rng.choice(("Delete", "Sleep"))
    return spec


def _crowd(rng: Rng, pools: tuple[PoolPlan, ...]) -> list[Step]:
    """Some are there from the beginning."""
    names = rng.sample(INSTANCES, rng.randint(2, 6))
    return [Step(round(rng.uniform(0, 0.4), 2), True, "create", _create(rng, pools, name)) for name in names]


def _users(rng: Rng, pools: tuple[PoolPlan, ...], length: float, gpus: bool) -> list[Step]:
    name: Callable[[], str] = lambda: rng.choice(INSTANCES)  # noqa: E731
    port: Callable[[], int] = lambda: rng.choice([p for pool in pools for p in pool.ports])  # noqa: E731
    pool: Callable[[], str] = lambda: rng.choice(pools).name  # noqa: E731
    actions: list[tuple[float, str, Callable[[], Args]]] = [
        (16, "create", lambda: _create(rng, pools)),
        (6, "delete", lambda: {"name": name()}),
        (14, "connect", lambda: {"name": name(), "count": rng.randint(1, 3)}),
        (10, "disconnect", lambda: {"name": name()}),
        (6, "json-connect", lambda: {"name": name(), "count": rng.randint(0, 2)}),
        (6, "join", lambda: {"name": name(), "id": rng.choice("abc"), "lease": rng.choice((None, 1, 2, 4))}),
        (4, "leave", lambda: {"name": name(), "id": rng.choice("abc")}),
        (10, "talk", lambda: {"port": port(), "seconds": round(rng.uniform(0.2, 4), 1)}),
        (3, "set-idle", lambda: {"pool": pool(), "seconds": rng.choice((0, 1, 2, 3))}),
        (2, "set-capacity", lambda: {"pool": pool(), "count": rng.randint(1, 5)}),
        (2, "set-image", lambda: {"pool": pool(), "tag": rng.randint(1, 3)}),
        (2, "set-voice", lambda: {"avatar": rng.choice(AVATARS), "voice": rng.choice(("x", "y"))}),
        (2, "set-spec", lambda: {"name": name(), "idle": rng.choice((0, 1, 2)), "sessions": rng.randint(1, 9)}),
        (1, "lose-avatar", lambda: {"avatar": rng.choice((*AVATARS, LATE)), "seconds": round(rng.uniform(0.5, 3), 1)}),
        (2, "make-avatar", lambda: {"avatar": LATE}),
        (5, "delete-pod", lambda: {"port": port(), "now": rng.random() < 0.3}),
        (3, "evict-pod", lambda: {"port": port()}),
        (4, "end-pod", lambda: {"port": port(), "how": rng.choice(("fail", "complete", "crash", "evicted", "oom"))}),
        (3, "unready-pod", lambda: {"port": port(), "seconds": round(rng.uniform(0.3, 3), 1)}),
        # A GPU is reserved by the claim: who deletes it by hand gives it away.
        *([] if gpus else [(3, "delete-service", lambda: {"port": port()})]),
        (2, "wipe-status", lambda: {"name": name()}),
    ]
    return _times(rng, length, 3.0, True, actions)


# ---- faults ------------------------------------------------------------------------------


def _faults(rng: Rng, operators: int, length: float) -> list[Step]:
    # "leader" is whoever leads when it happens.
    who: Callable[[], int | str] = lambda: rng.choice((*range(operators), "leader"))  # noqa: E731
    on: Callable[[], str] = lambda: rng.choice(("", *WRITTEN))  # noqa: E731
    short: Callable[[], float] = lambda: round(rng.uniform(0.3, 3), 1)  # noqa: E731
    verb: Callable[[], str] = lambda: rng.choice(("create", "patch", "delete", ""))  # noqa: E731
    actions: list[tuple[float, str, Callable[[], Args]]] = [
        (
            12,
            "refuse",
            lambda: {
                "operator": who(),
                "code": rng.choice((409, 429, 429, 500, 503, 504)),
                "verb": verb(),
                "resource": on(),
                "times": rng.randint(1, 6),
                "after": rng.choice((None, 0, 1)),
            },
        ),
        (8, "lose-answer", lambda: {"operator": who(), "verb": verb(), "resource": on(), "times": rng.randint(1, 3)}),
        (6, "slow", lambda: {"operator": who(), "delay": round(rng.uniform(0.05, 1), 2), "seconds": short()}),
        (4, "late-answers", lambda: {"operator": who(), "delay": round(rng.uniform(0.1, 1), 2), "seconds": short()}),
        (5, "cut", lambda: {"operator": who(), "resource": on()}),
        (5, "tear", lambda: {"operator": who(), "resource": on()}),
        (5, "expire", lambda: {"operator": who(), "times": rng.randint(1, 3)}),
        (6, "stall", lambda: {"operator": who(), "resource": on(), "seconds": short()}),
        (4, "stale", lambda: {"operator": who(), "seconds": short()}),
        (3, "away", lambda: {"operator": who(), "seconds": short()}),
        (8, "kill", lambda: {"operator": who()}),
        (
            8,
            "kill-at",
            lambda: {
                "operator": who(),
                "when": rng.choice(("before", "after")),
                **dict(zip(("verb", "resource"), rng.choice(WRITES), strict=True)),
            },
        ),
        (6, "freeze", lambda: {"operator": who(), "seconds": round(rng.uniform(0.5, 6), 1)}),
        (4, "terminate", lambda: {"operator": who()}),
        (3, "lose-node", lambda: {"seconds": short()}),
        (2, "lose-runtimes", lambda: {"seconds": short()}),
    ]
    return _times(rng, length, 0.9, False, actions)


def _cluster_faults(rng: Rng, length: float) -> list[Step]:
    """One or two, one after the other."""
    steps, at = [], rng.uniform(1, 4)
    while at < length:
        seconds = round(rng.uniform(0.5, 4), 1)
        if rng.random() < 0.15:
            steps.append(Step(round(at, 2), False, "etcd-full", {"seconds": seconds}))
        else:
            name = rng.choice((*COMPONENTS, "kube-apiserver", "kube-apiserver", "etcd"))
            # A new kwok waits for the leases of the killed one, for 40 s.
            how = "freeze" if name == "kwok" else rng.choice(("kill", "kill", "freeze"))
            steps.append(Step(round(at, 2), False, "component", {"name": name, "how": how, "seconds": seconds}))
        # A component needs its time to come back, too.
        at += seconds + rng.uniform(4, 8)
    return steps


def _times(
    rng: Rng, length: float, rate: float, user: bool, actions: list[tuple[float, str, Callable[[], Args]]]
) -> list[Step]:
    """Steps at random moments, ``rate`` a second."""
    steps, at = [], rng.expovariate(rate)
    weights = [weight for weight, _, _ in actions]
    while at < length:
        _, what, args = rng.choices(actions, weights)[0]
        steps.append(Step(round(at, 2), user, what, args()))
        at += rng.expovariate(rate)
    return steps
