"""`kubectl avatar logs`: what the runtime of an avatar says."""

from __future__ import annotations

import sys

from avatar_operator.domain.meaning import meant
from avatar_operator.domain.names import RUNTIME_CONTAINER
from avatar_operator.domain.resources import Instance
from avatar_operator.kube.errors import ApiError, NotFoundError

from . import screen
from .link import Link, Stop, Target


async def run(target: Target, word: str, *, follow: bool, previous: bool, tail: int) -> int | None:
    """The command. The log goes to stdout, the name of its pod to stderr where several were meant."""
    params = {"container": RUNTIME_CONTAINER}
    params |= {"follow": "true"} if follow else {}
    params |= {"previous": "true"} if previous else {}
    params |= {"tailLines": str(tail)} if tail >= 0 else {}
    async with Link.open(target) as link:
        item, pod = _of(link, word, await link.instances())
        try:
            async for piece in link.client.logs(link.namespace, pod, params):
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
        except NotFoundError as error:
            raise Stop(f"pod {pod} is gone; {_last(item)}") from error
        except ApiError as error:
            if error.status != 400:
                raise
            # Not begun yet, or no previous container: the API server's words say which.
            raise Stop(f"pod {pod} of {item.spec.avatar_name}: {error.message}; {_last(item)}") from error
    return None


def _of(link: Link, word: str, instances: list[Instance]) -> tuple[Instance, str]:
    """The instance that is meant, and its pod."""
    found = meant(instances, word)
    if not found:
        raise Stop(f"no instance and no avatar {word!r} runs in namespace {link.namespace}; kubectl avatar list")
    pods: dict[str, Instance] = {}
    for item in found:
        if item.status.pod_name and (item.status.pod_name not in pods or item.status.phase != "Shared"):
            pods[item.status.pod_name] = item
    if not pods:
        item = found[0]
        state = item.status.phase or "Pending"
        what = f"{item.spec.avatar_name} (avatarinstance/{item.metadata.name}) is {state}, without a pod"
        raise Stop(f"{what}; {_last(item)}")
    pod, item = next(iter(pods.items()))
    if len(pods) > 1:
        others = ", ".join(i.metadata.name for i in pods.values() if i is not item)
        screen.err().print(f"pod {pod} of avatarinstance/{item.metadata.name}; there are also: {others}", markup=False)
    return item, pod


def _last(item: Instance) -> str:
    """Why it has no log to show, as far as status tells."""
    status, last = item.status, item.status.last_termination
    if last is not None and last.message:
        code = f" (exit code {last.exit_code})" if last.exit_code is not None else ""
        return f"its last pod ended with {last.reason}{code}: {last.message}"
    return f"{status.reason}: {status.message}" if status.message else "kubectl avatar list shows its state"
