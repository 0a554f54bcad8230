"""What holds for one instance: its overrides over the avatar's over the pool's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .resources import Avatar, AvatarData, AvatarSpec, Instance, Meta, Pool
from .tts import TtsEngine
from .tts_choice import Choice, choose


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an instance cannot run; ``message`` names the field and the remedy."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about one instance that its pod and its timers need. Seconds."""

    avatar_name: str
    data: AvatarData
    model: str
    transport: str
    max_sessions: int
    tts: Choice
    tts_voice: str
    idle_timeout: int
    idle_action: str
    startup_timeout: int
    keep_warm: bool
    count_from_runtime: bool

    @property
    def collects(self) -> bool:
        """Whether this instance is ever collected for being idle."""
        return self.idle_timeout > 0 and not self.keep_warm


def resolve(instance: Instance, pool: Pool, avatar: Avatar, engines: Sequence[TtsEngine] = ()) -> Settings:
    """Merge instance over avatar over pool; an empty value falls to the next level. ``engines``: the namespace's."""
    spec, known, defaults = instance.spec, avatar.spec, pool.spec.defaults
    transport = spec.transport or known.transport or defaults.transport
    idle = spec.idle.timeout_seconds
    return Settings(
        avatar_name=spec.avatar_name,
        data=known.data,
        model=spec.model or known.model or defaults.model,
        transport=transport,
        max_sessions=spec.max_sessions
        or known.max_sessions
        or min(defaults.max_sessions, pool.spec.limits.max_sessions),
        tts=choose(spec.tts.engine or known.tts.engine or pool.spec.tts.engine, pool.spec.tts.url, engines),
        tts_voice=spec.tts.voice or known.tts.voice or pool.spec.tts.voice,
        idle_timeout=pool.spec.idle.timeout_seconds if idle is None else idle,
        idle_action=spec.idle.action or pool.spec.idle.action,
        startup_timeout=spec.startup_timeout_seconds or pool.spec.startup_timeout_seconds,
        keep_warm=known.keep_warm,
        # rtmp and rtcpush hold one session for ever (research/runtime 2.3), so
        # the runtime's count says nothing about viewers there.
        count_from_runtime=pool.spec.idle.activity_source == "Runtime" and transport == "webrtc",
    )


def check(instance: Instance, pool: Pool | None, avatar: Avatar | None) -> Problem | None:
    """The first thing that keeps ``instance`` from running, or None."""
    namespace, spec = instance.metadata.namespace, instance.spec
    if pool is None:
        return Problem(
            "PoolNotFound",
            f"spec.poolRef {spec.pool_ref!r}: no AvatarPool of that name in namespace {namespace!r}; "
            f"create it (kubectl get avp -n {namespace} lists those that exist)",
        )
    if avatar is None:
        return Problem(
            "AvatarNotFound",
            f"spec.avatarName {spec.avatar_name!r}: no Avatar with this avatarName in namespace "
            f"{namespace!r}; create one (kubectl get av -n {namespace} lists those that exist)",
        )
    return _check_limits(instance, pool, avatar) or _check_supported(pool, avatar)


def _check_limits(instance: Instance, pool: Pool, avatar: Avatar) -> Problem | None:
    spec, limits = instance.spec, pool.spec.limits
    asked = (
        ("maxSessions", spec.max_sessions or avatar.spec.max_sessions, limits.max_sessions),
        ("idle.timeoutSeconds", spec.idle.timeout_seconds, limits.idle_timeout_seconds),
        ("startupTimeoutSeconds", spec.startup_timeout_seconds, limits.startup_timeout_seconds),
    )
    for name, value, limit in asked:
        # An idle timeout of 0 means never, which is more than any limit.
        endless = name == "idle.timeoutSeconds" and value == 0
        if value is not None and limit is not None and (value > limit or endless):
            return Problem(
                "LimitExceeded",
                f"spec.{name} {value}: pool {pool.metadata.name!r} allows at most {limit} "
                f"(its spec.limits); ask for less or have the pool's limit raised",
            )
    return None


def _check_supported(pool: Pool, avatar: Avatar) -> Problem | None:
    if avatar.spec.data.host_path is not None and not pool.spec.limits.allow_host_path:
        return Problem(
            "HostPathNotAllowed",
            f"Avatar {avatar.metadata.name!r}: spec.data.hostPath is not allowed by pool "
            f"{pool.metadata.name!r}; set its spec.limits.allowHostPath or use pvc or image",
        )
    return None


def nameless(instance: Instance) -> Avatar:
    """Stands in for an Avatar deleted under a running instance."""
    return Avatar(metadata=Meta(name=""), spec=AvatarSpec(avatar_name=instance.spec.avatar_name))
