"""TTSEngine and Deployment as frozen structs; ``crds/ttsengines.yaml`` is the source, as for domain/resources.py."""

# ruff: noqa: RUF012 - msgspec copies empty defaults for each object

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import field

from .resources import Condition, Gpu, GpuSelector, GpuStatus, Meta, Model, Pool, PoolSpec, Runtime


class TtsGpu(Model, frozen=True):
    """Which GPU an engine gets, and how; memory in MiB."""

    mode: str = "None"
    resource_name: str = "nvidia.com/gpu"
    primary: GpuSelector | None = None
    backup: GpuSelector | None = None
    vram_mib: int = field(default=4096, name="vramMiB")
    min_free_mib: int = field(default=0, name="minFreeMiB")
    policy: str = "PrimaryFirst"
    runtime_class_name: str = ""


class TtsSpec(Model, frozen=True):
    """TTSEngine.spec. Times in seconds."""

    image: str
    protocol: str
    aliases: list[str] = []
    speaks: list[str] = []
    port: int = 5002
    health_path: str = "/health"
    startup_timeout_seconds: int = 30
    idle_timeout_seconds: int = 300
    min_replicas: int = 0
    max_replicas: int = 1
    users_per_replica: int = 10
    fallback: str = ""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: list[dict[str, Any]] = []
    command: list[str] = []
    args: list[str] = []
    env: list[dict[str, Any]] = []
    resources: dict[str, Any] = {}
    volumes: list[dict[str, Any]] = []
    volume_mounts: list[dict[str, Any]] = []
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    affinity: dict[str, Any] = {}
    priority_class_name: str = ""
    pod_security_context: dict[str, Any] | None = None
    security_context: dict[str, Any] | None = None
    gpu: TtsGpu = TtsGpu()

    @property
    def protocols(self) -> set[str]:
        """Everything that the server answers."""
        return {self.protocol, *self.speaks}


class TtsStatus(Model, frozen=True):
    """TTSEngine.status."""

    observed_generation: int = 0
    phase: str = ""
    reason: str = ""
    message: str = ""
    url: str = ""
    users: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    fallback: str | None = None
    start_time: datetime | None = None
    ready_time: datetime | None = None
    idle_deadline: datetime | None = None
    gpu: GpuStatus | None = None
    conditions: tuple[Condition, ...] = ()


class TtsEngine(Model, frozen=True):
    """TTSEngine."""

    metadata: Meta
    spec: TtsSpec
    status: TtsStatus = TtsStatus()

    @property
    def name(self) -> str:
        """Its name, which is the engine's."""
        return self.metadata.name

    def as_pool(self) -> Pool:
        """The engine in the terms that the placement of avatars knows: one book for all GPUs."""
        spec, gpu = self.spec, self.spec.gpu
        return Pool(
            metadata=self.metadata,
            spec=PoolSpec(
                runtime=Runtime(
                    image=spec.image,
                    env=spec.env,
                    node_selector=spec.node_selector,
                    tolerations=spec.tolerations,
                ),
                gpu=Gpu(
                    mode=gpu.mode,
                    resource_name=gpu.resource_name,
                    primary=gpu.primary,
                    backup=gpu.backup,
                    min_free_mib=gpu.min_free_mib,
                    per_instance_mib=gpu.vram_mib,
                    policy=gpu.policy,
                    estimates="Fixed",
                    runtime_class_name=gpu.runtime_class_name,
                ),
            ),
        )


class DeploymentSpec(Model, frozen=True):
    """The part of a Deployment's spec that decisions read."""

    replicas: int = 1


class DeploymentCondition(Model, frozen=True):
    """status.conditions[] of a Deployment: ReplicaFailure says why there are no pods."""

    type: str
    status: str = ""
    reason: str = ""
    message: str = ""


class DeploymentStatus(Model, frozen=True):
    """The part of a Deployment's status that decisions read."""

    conditions: tuple[DeploymentCondition, ...] = ()


class Deployment(Model, frozen=True):
    """The Deployment of an engine."""

    metadata: Meta
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()
