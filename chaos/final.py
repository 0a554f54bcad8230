"""What holds once all faults have ended: every instance is in a state that its spec explains, nothing is left over."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass

from tests.support.api import Json
from tests.support.world import MANAGED, World

from .objects import LABEL_POOL, LABEL_PORT, capacity, counted, kin, label, ready, seconds

# A decision that is due may be so late (seconds) before it counts as forgotten.
LATE = 4.0
# Pods in these phases of an instance exist.
SERVED = ("Running", "Draining", "Shared")


@dataclass(frozen=True)
class State:
    """All objects of a namespace at (almost) one time."""

    instances: list[Json]
    pods: list[Json]
    services: list[Json]
    pools: dict[str, Json]
    avatars: set[str]
    now: float

    @classmethod
    async def of(cls, world: World) -> State:
        """Read it."""
        listed = await asyncio.gather(
            *(
                world.api.list(resource, world.namespace, query)
                for resource, query in (
                    ("avatarinstances", ""),
                    ("pods", MANAGED),
                    ("services", MANAGED),
                    ("avatarpools", ""),
                    ("avatars", ""),
                )
            )
        )
        instances, pods, services, pools, avatars = listed
        return cls(
            instances,
            pods,
            services,
            {pool["metadata"]["name"]: pool for pool in pools},
            {avatar["spec"]["avatarName"] for avatar in avatars},
            time.time(),
        )


def complaints(state: State, skew: float = 0.0) -> list[str]:
    """What is wrong; empty when the system has settled. ``skew``: the wrongest clock of an operator, in seconds."""
    late = LATE + skew
    found: list[str] = []
    found += _objects(state)
    groups: dict[tuple[str, ...], list[Json]] = defaultdict(list)
    for instance in state.instances:
        groups[kin(instance)].append(instance)
    for members in groups.values():
        members.sort(key=lambda i: (i["metadata"]["creationTimestamp"], i["metadata"]["name"]))
        for member in members:
            found += [
                f"{member['metadata']['name']} {_line(member)}: {text}" for text in _explained(state, member, late)
            ]
    ports: dict[int, set[tuple[str, ...]]] = defaultdict(set)
    for instance in state.instances:
        if (port := instance.get("status", {}).get("port")) is not None:
            ports[port].add(kin(instance))
    found += [f"port {port} is shown by {len(of)} groups" for port, of in ports.items() if len(of) > 1]
    return found + _queues(state)


def _objects(state: State) -> list[str]:
    """Every claim and every pod is some instance's."""
    found = []
    pods = {pod["metadata"]["name"]: pod for pod in state.pods}
    names = {service["metadata"]["name"] for service in state.services}
    shown = {i.get("status", {}).get("podName") for i in state.instances}
    for service in state.services:
        name = service["metadata"]["name"]
        if name not in shown and name not in pods:
            found.append(f"Service {name} is nobody's")
    owners = {i["metadata"]["uid"] for i in state.instances}
    for name, pod in pods.items():
        refs = {ref["uid"] for ref in pod["metadata"].get("ownerReferences", [])}
        if "deletionTimestamp" in pod["metadata"]:
            found.append(f"pod {name} is terminating")
        elif not refs & owners:
            found.append(f"pod {name} is nobody's")
        elif name not in names:
            found.append(f"pod {name} has no claim")
    return found


def _explained(state: State, member: Json, late: float) -> list[str]:
    """What is unexplained about one instance."""
    status, spec = member.get("status", {}), member["spec"]
    phase, reason = status.get("phase", ""), status.get("reason", "")
    pods = {pod["metadata"]["name"]: pod for pod in state.pods}
    pod = pods.get(status.get("podName", ""))
    if status.get("observedGeneration") != member["metadata"].get("generation"):
        return [f"observedGeneration {status.get('observedGeneration')} of {member['metadata'].get('generation')}"]
    match phase:
        case "Running" | "Shared":
            return _serves(state, member, pod, late)
        case "Stopped":
            if counted(member):
                return [f"{counted(member)} connections and nobody wakes it"]
            return ["it shows a port"] if "port" in status else []
        case "Failed":
            return _failed(state, spec, status, reason, late)
        case "Pending":
            if reason in ("PoolFull", "PortsExhausted", "GPUExhausted"):
                return []
            return _because_of_its_server(state, member, status, f"{reason} explains no waiting")
        case _:
            return [f"{phase or 'no phase'} is no state to rest in"]


def _serves(state: State, member: Json, pod: Json | None, late: float) -> list[str]:
    status = member["status"]
    if pod is None:
        return [f"its pod {status.get('podName')} does not exist"]
    found = []
    if label(pod, LABEL_PORT) != str(status.get("port")):
        found.append(f"its pod has port {label(pod, LABEL_PORT)}")
    if member["metadata"]["uid"] not in {r["uid"] for r in pod["metadata"].get("ownerReferences", [])}:
        found.append("it does not own its pod")
    if not ready(pod):
        found.append("its pod is not Ready")
    if status["phase"] == "Shared":
        server = next((i for i in state.instances if i["metadata"]["name"] == status.get("sharedWith")), None)
        if server is None or kin(server) != kin(member) or server.get("status", {}).get("phase") not in SERVED:
            found.append(f"sharedWith {status.get('sharedWith')} does not serve it")
        elif server["status"].get("port") != status.get("port"):
            found.append(f"its server has port {server['status'].get('port')}")
    deadline = status.get("idleDeadline")
    if deadline is not None and seconds(deadline) < state.now - late:
        found.append(f"its idleDeadline passed {state.now - seconds(deadline):.1f} s ago")
    return found


def _failed(state: State, spec: Json, status: Json, reason: str, late: float) -> list[str]:
    known = spec["avatarName"] in state.avatars
    if reason == "AvatarNotFound":
        return [] if not known else ["its Avatar exists"]
    if reason == "PoolNotFound":
        return [] if spec.get("poolRef") not in state.pools else ["its AvatarPool exists"]
    if reason in ("LimitExceeded", "QueueFull"):
        return []
    if status.get("sharedWith"):
        return []
    retry = status.get("retryTime")
    if retry is None:
        return [f"{reason} without a next try"]
    if status.get("lastTermination", {}).get("reason") != reason:
        return [f"reason {reason}, lastTermination {status.get('lastTermination', {}).get('reason')}"]
    if seconds(retry) < state.now - late:
        return [f"its next try was due {state.now - seconds(retry):.1f} s ago"]
    return []


def _because_of_its_server(state: State, member: Json, status: Json, otherwise: str) -> list[str]:
    """A follower waits because its server does; that one is judged itself."""
    server = next((i for i in state.instances if i["metadata"]["name"] == status.get("sharedWith")), None)
    if server is None or kin(server) != kin(member):
        return [otherwise]
    return []


def _queues(state: State) -> list[str]:
    """Who waits, waits for something: the pool is full or has no port; and the line has no gaps."""
    found = []
    for name, pool in state.pools.items():
        spec = pool["spec"]
        room = capacity(spec)
        held = [s for s in state.services if label(s, LABEL_POOL) == name]
        waiting = [
            i
            for i in state.instances
            if i["spec"].get("poolRef", "default") == name
            and i.get("status", {}).get("phase") == "Pending"
            and not i["status"].get("sharedWith")
        ]
        if any(i["status"].get("reason") == "PoolFull" for i in waiting) and len(held) < room:
            found.append(f"pool {name} runs {len(held)} of {room} while {len(waiting)} wait")
        # Ports of another pool, or of a stranger, may be in the range: then waiting for one is right with free places.
        taken = {int(label(s, LABEL_PORT)) for s in state.services}
        ports = set(range(spec["ports"]["base"], spec["ports"]["base"] + spec["ports"]["count"]))
        if any(i["status"].get("reason") == "PortsExhausted" for i in waiting) and ports - taken:
            found.append(f"pool {name} has the ports {sorted(ports - taken)} while {len(waiting)} wait")
        places = sorted(i["status"].get("queuePosition", 0) for i in waiting)
        if len(places) != len(set(places)) or (places and places[0] < 1):
            found.append(f"the line of pool {name} has the places {places}")
    return found


def _line(instance: Json) -> str:
    status = instance.get("status", {})
    words = [status.get("phase", "-"), status.get("reason", "-"), f"port {status.get('port')}"]
    return f"({', '.join(words)})"
