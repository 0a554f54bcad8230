"""Claims and pods: one Service and one pod for each port in use, and none besides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from . import objects
from .audit_members import Members
from .devices import placement_of
from .findings import GRACE_SECONDS, Finding, Picture, about, live
from .groups import labelled
from .names import LABEL_TTS, claim_name
from .plan import wants_to_run
from .ports import overlap
from .resources import Instance, Pod, Service, Termination

# Phases in which an instance has the pod that it names.
_SERVED = ("Starting", "Running", "Draining")


def look(picture: Picture, members: Members) -> Iterator[Finding]:
    """Findings about claims, pods and port ranges."""
    doubled = list(_on_one_port(picture, members))
    yield from doubled
    yield from _claims(picture, members)
    yield from _pods(picture, members, {f.ref.uid for f in doubled})
    yield from _unlabelled(picture)
    yield from _ranges(picture)


def _claims(picture: Picture, members: Members) -> Iterator[Finding]:
    for claim, (group, pool, _) in members.claims.values():
        meta = claim.metadata
        if not live(meta) or picture.young(meta):
            continue
        wanted = any(wants_to_run(i) for i in members.instances.get(group, ()))
        if not wanted and group not in members.occupied:
            text = f"Service {meta.name} claims a port for an avatar that no instance asks for, and it has no pod"
            yield Finding("ClaimWithoutInstance", about("Service", meta), text, pool, group, _release(claim, members))


def _release(claim: Service, members: Members) -> float:
    """Seconds for which the operator may keep a claim whose pod has gone: GPU memory is not free at once."""
    if placement_of(claim.metadata) is None:
        return 0
    found = labelled(claim.metadata)
    pool = members.pools.get((claim.metadata.namespace, found.pool)) if found is not None else None
    termination = pool.spec.termination if pool is not None else Termination()
    return termination.gpu_release_seconds + GRACE_SECONDS


def _pods(picture: Picture, members: Members, doubled: set[str]) -> Iterator[Finding]:
    for group, pods in members.pods.items():
        instances = members.instances.get(group, [])
        for pod in pods:
            meta, found = pod.metadata, labelled(pod.metadata)
            if found is None or meta.uid in doubled or picture.young(meta):
                continue
            if not any(wants_to_run(i) for i in instances):
                text = f"pod {meta.name} serves port {found.port} for an avatar that no instance asks for"
                yield Finding("PodWithoutInstance", about("Pod", meta), text, found.pool, group)
            claim, claimed = members.claims.get((meta.namespace, claim_name(found.port)), (None, None))
            if claim is None or claimed is None or claimed.group != group:
                text = (
                    f"no Service {claim_name(found.port)} of the avatar's claims port {found.port} of pod {meta.name}"
                )
                yield Finding("PodWithoutClaim", about("Pod", meta), text, found.pool, group)
            elif instances and claim.metadata.name == meta.name and not picture.young(claim.metadata):
                yield from _compare(instances[0], claim, pod)
            yield from _owners(instances, pod)
        if len(pods) > 1 and not picture.young(*(p.metadata for p in pods)):
            named = sorted(pods, key=lambda p: p.metadata.name)
            text = f"pods {', '.join(p.metadata.name for p in named)} serve the same avatar"
            pool = labelled(named[0].metadata)
            yield Finding("TwoPodsForAvatar", about("Pod", named[-1].metadata), text, pool.pool if pool else "", group)


def _compare(server: Instance, claim: Service, pod: Pod) -> Iterator[Finding]:
    """A claim beside what the operator would write; which GPU it names is another finding's."""
    found = labelled(pod.metadata)
    if found is None:
        return
    body = objects.service(server, found.group.id, found.port, placement_of(claim.metadata))
    change = objects.mended(claim, body)
    if change:
        spec = [f"spec.{key}" for key in change.get("spec", {}) if key != "publishNotReadyAddresses"]
        meta = [f"{part} {key}" for part, keys in change.get("metadata", {}).items() for key in keys]
        text = f"Service {claim.metadata.name}: {', '.join([*meta, *spec])} not as the operator writes it"
        yield Finding("ServiceDiffers", about("Service", claim.metadata), text, found.pool, found.group)


def _owners(instances: list[Instance], pod: Pod) -> Iterator[Finding]:
    owners = {ref.uid for ref in pod.metadata.owner_references}
    for one in instances:
        served = one.status.phase in _SERVED and one.status.pod_name == pod.metadata.name
        if served and one.metadata.uid not in owners:
            text = f"pod {pod.metadata.name} does not have AvatarInstance {one.metadata.name} as an owner"
            found = labelled(pod.metadata)
            yield Finding(
                "PodNotOwned", about("Pod", pod.metadata), text, one.spec.pool_ref, found.group if found else None
            )


def _on_one_port(picture: Picture, members: Members) -> Iterator[Finding]:
    by_port: dict[tuple[str, int], list[Pod]] = defaultdict(list)
    for pod, found in members.pod_named.values():
        if live(pod.metadata):
            by_port[found.group.namespace, found.port].append(pod)
    for (_, port), pods in by_port.items():
        groups = {f.group for p in pods if (f := labelled(p.metadata)) is not None}
        # Those of one avatar are TwoPodsForAvatar.
        if len(groups) < 2 or picture.young(*(p.metadata for p in pods)):
            continue
        # The one that is not named after the port is the stranger.
        *_, extra = sorted(pods, key=lambda p: (p.metadata.name != claim_name(port), p.metadata.name))
        names = ", ".join(sorted(p.metadata.name for p in pods))
        where = labelled(extra.metadata)
        if where is not None:
            text = f"pods {names} have port {port}, each for another avatar"
            yield Finding("TwoPodsOnPort", about("Pod", extra.metadata), text, where.pool, where.group)


def _unlabelled(picture: Picture) -> Iterator[Finding]:
    items = [*(("Service", s.metadata) for s in picture.services), *(("Pod", p.metadata) for p in picture.pods)]
    for kind, meta in items:
        if live(meta) and labelled(meta) is None and LABEL_TTS not in meta.labels:
            text = f"{kind} {meta.name} is labelled as the operator's and does not say for which avatar and port"
            yield Finding("LabelsIncomplete", about(kind, meta), text)


def _ranges(picture: Picture) -> Iterator[Finding]:
    pools = sorted((p for p in picture.pools if live(p.metadata)), key=lambda p: p.metadata.name)
    for one, other in combinations(pools, 2):
        if one.metadata.namespace == other.metadata.namespace and overlap(one.spec.ports, other.spec.ports):
            first, second = one.metadata.name, other.metadata.name
            text = f"spec.ports of AvatarPool {second} has ports that AvatarPool {first} has, too"
            yield Finding("PortRangesOverlap", about("AvatarPool", other.metadata), text, second)
