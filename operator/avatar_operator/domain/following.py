"""Instances that share another one's pod: what they show."""

from __future__ import annotations

from .actions import (
    Event,
    Plan,
)
from .resources import Instance, InstanceStatus, Pod
from .status import NO_POD, Desired, planned, say
from .view import GroupView


def follow(view: GroupView, members: list[Instance], result: Plan, pod: Pod | None = None) -> None:
    """Followers show what their server shows, in the words of a follower."""
    server = members[0]
    status = planned(server, result)
    ready = pod is not None and status.ready_time is not None and status.phase in ("Running", "Draining")
    for member in members[1:]:
        if ready:
            reason, message = "Shared", f"served by AvatarInstance {server.metadata.name}"
            desired = Desired(
                "Shared",
                reason,
                message,
                {
                    "port": status.port,
                    "webrtcUrl": status.webrtc_url,
                    "node": status.node,
                    "gpu": status.gpu,
                    "media": status.media,
                    "podName": status.pod_name,
                    "readyTime": status.ready_time,
                    "sharedWith": server.metadata.name,
                    "queuePosition": None,
                    "retryTime": None,
                    "idleDeadline": None,
                    "drainDeadline": None,
                },
                (("Ready", "True", reason, message), *_speech_of(status)),
            )
        else:
            message = f"shares AvatarInstance {server.metadata.name}: {status.message or status.reason}"
            fields = {**NO_POD, "sharedWith": server.metadata.name, "queuePosition": status.queue_position}
            phase = "Pending" if status.phase in ("Starting", "Running", "Draining", "") else status.phase
            desired = Desired(
                phase,
                status.reason,
                message,
                fields,
                (("Ready", "False", status.reason or "Waiting", message),),
            )
        event = Event("Normal", "Shared", desired.message) if member.status.phase != desired.phase == "Shared" else None
        say(view.now, member, desired, result, event)


def _speech_of(server: InstanceStatus) -> tuple[tuple[str, str, str, str], ...]:
    """Followers speak through their server's engine."""
    return tuple((c.type, c.status, c.reason, c.message) for c in server.conditions if c.type == "TTSReady")
