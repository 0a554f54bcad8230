"""The custom resources as frozen structs: the parts of each that decisions read.

``crds/*.yaml`` is the source of the fields and their defaults; a test holds
these structs against it (tests/unit/test_crd_drift.py). Unknown fields are
dropped on decoding, missing ones take the CRD's default.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct, field

from .names import MANAGER


class Model(Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True, gc=False):
    """Base of all structs here: immutable, camelCase on the wire.

    They come from JSON and cannot be part of a circle, so the garbage collector need not know of them.
    """


class OwnerReference(Model, frozen=True):
    """metadata.ownerReferences[]."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class Meta(Model, frozen=True):
    """The parts of metadata that decisions read."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()


class CountFields(Struct, frozen=True, gc=False):
    """metadata.managedFields[].fieldsV1.f:status, as far as it is about counts: what is there is owned."""

    connections: dict[str, object] | None = field(default=None, name="f:connections")
    sessions: dict[str, object] | None = field(default=None, name="f:sessions")


_NO_COUNTS = CountFields()


class OwnedFields(Struct, frozen=True, gc=False):
    """metadata.managedFields[].fieldsV1."""

    status: CountFields = field(default=_NO_COUNTS, name="f:status")


class ManagedFields(Model, frozen=True):
    """metadata.managedFields[]: who set which fields, and when a value of them changed last."""

    manager: str = ""
    time: datetime | None = None
    fields_v1: OwnedFields = OwnedFields()


class InstanceMeta(Meta, frozen=True):
    """The metadata of an AvatarInstance."""

    managed_fields: tuple[ManagedFields, ...] = ()


class Condition(Model, frozen=True):
    """status.conditions[]."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
    observed_generation: int = 0


# ---- AvatarPool ---------------------------------------------------------------


class Ports(Model, frozen=True):
    """The instance range: base … base+count−1."""

    base: int = 8615
    count: int = 5

    def __contains__(self, port: int) -> bool:
        return self.base <= port < self.base + self.count


class Probes(Model, frozen=True):
    """How the kubelet asks the runtime; seconds. An empty path means a TCP probe."""

    path: str = "/health"
    period_seconds: int = 1
    timeout_seconds: int = 3
    failure_threshold: int = 3
    liveness_period_seconds: int = 10
    liveness_failure_threshold: int = 6


class Runtime(Model, frozen=True):
    """What runs, and how: admins own this, never the author of an instance."""

    image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: list[dict[str, Any]] = []
    command: list[str] = []
    args_style: str = "LiveTalking"
    extra_args: list[str] = []
    env: list[dict[str, Any]] = []
    resources: dict[str, Any] = {}
    avatar_data_path: str = "/app/data/avatars"
    volumes: list[dict[str, Any]] = []
    volume_mounts: list[dict[str, Any]] = []
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    affinity: dict[str, Any] = {}
    priority_class_name: str = ""
    scheduler_name: str = ""
    service_account_name: str = ""
    pod_security_context: dict[str, Any] | None = None
    security_context: dict[str, Any] | None = None
    pod_labels: dict[str, str] = {}
    pod_annotations: dict[str, str] = {}
    probes: Probes = Probes()


class IceServer(Model, frozen=True):
    """One STUN or TURN server, as RTCIceServer has it."""

    urls: list[str]
    username: str = ""
    credential: str = ""


class SecretKey(Model, frozen=True):
    """A key of a Secret in the pool's namespace."""

    name: str
    key: str = "secret"


class Network(Model, frozen=True):
    """How clients reach an instance."""

    mode: str = "HostNetwork"
    external_host: str = ""
    ice_servers: list[IceServer] = []
    turn_secret_ref: SecretKey | None = None
    turn_ttl_seconds: int = field(default=3600, name="turnTTLSeconds")
    udp_port_base: int = 50000
    udp_ports_per_instance: int = 20


class GpuSelector(Model, frozen=True):
    """Which GPUs: any of the lists that is given must match."""

    indices: list[int] = []
    uuids: list[str] = []
    products: list[str] = []
    node_selector: dict[str, str] = {}


class Dra(Model, frozen=True):
    """How a ResourceClaim asks for memory of a GPU: class, driver (the domain of its attributes), capacity."""

    device_class_name: str = "gpu.nvidia.com"
    driver: str = "gpu.nvidia.com"
    capacity: str = "memory"


class Gpu(Model, frozen=True):
    """GPU rules of a pool; MiB. ``estimates``: whether learned figures count (AtLeast, Learned, Fixed)."""

    mode: str = "None"
    resource_name: str = "nvidia.com/gpu"
    primary: GpuSelector | None = None
    backup: GpuSelector | None = None
    min_free_mib: int = field(default=11000, name="minFreeMiB")
    per_instance_mib: int = field(default=4096, name="perInstanceMiB")
    policy: str = "PrimaryFirst"
    estimates: str = "AtLeast"
    runtime_class_name: str = ""
    dra: Dra = Dra()


class PoolIdle(Model, frozen=True):
    """Collection of instances nobody uses; seconds, 0 = never."""

    timeout_seconds: int = 1800
    action: str = "Delete"
    claim_timeout_seconds: int | None = None
    max_age_seconds: int = 0
    connection_leak_seconds: int = 300
    activity_source: str = "Runtime"


class Health(Model, frozen=True):
    """The operator's own look at running instances."""

    period_seconds: int = 60
    failures: int = 3


class Termination(Model, frozen=True):
    """How an instance ends; seconds."""

    drain_seconds: int = 30
    gpu_release_seconds: int = 3


class Queue(Model, frozen=True):
    """The waiting line of a full pool."""

    max_length: int = 100
    timeout_seconds: int = 0


class Defaults(Model, frozen=True):
    """What instances and avatars get that say nothing."""

    model: str = "musetalk"
    transport: str = "webrtc"
    max_sessions: int = 100


class Limits(Model, frozen=True):
    """What overrides on an instance may not exceed."""

    max_sessions: int = 100
    idle_timeout_seconds: int | None = None
    startup_timeout_seconds: int | None = None
    allow_host_path: bool = False


class PoolSessions(Model, frozen=True):
    """How the REST API keeps sessions; windows in seconds."""

    spill: str = "Refuse"
    connect_seconds: int = 60
    reconnect_seconds: int = 30


class PoolTts(Model, frozen=True):
    """The TTS engine of a pool and where it answers."""

    engine: str = "edgetts"
    voice: str = ""
    url: str = ""


class PoolSpec(Model, frozen=True):
    """AvatarPool.spec."""

    runtime: Runtime
    ports: Ports = Ports()
    max_instances: int | None = None
    network: Network = Network()
    gpu: Gpu = Gpu()
    idle: PoolIdle = PoolIdle()
    startup_timeout_seconds: int = 30
    health: Health = Health()
    termination: Termination = Termination()
    queue: Queue = Queue()
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    sessions: PoolSessions = PoolSessions()
    tts: PoolTts = PoolTts()

    @property
    def capacity(self) -> int:
        """Most instances that may hold a port at once."""
        if self.max_instances is None:
            return self.ports.count
        return min(self.max_instances, self.ports.count)


class PoolPortStatus(Model, frozen=True):
    """AvatarPool.status.ports."""

    used: int = 0
    free: int = 0
    in_use: list[int] = []


class PoolInstanceStatus(Model, frozen=True):
    """AvatarPool.status.instances: a count for each phase."""

    running: int = 0
    starting: int = 0
    pending: int = 0
    failed: int = 0
    stopped: int = 0
    shared: int = 0
    draining: int = 0


class PoolStatus(Model, frozen=True):
    """AvatarPool.status."""

    observed_generation: int = 0
    ports: PoolPortStatus | None = None
    instances: PoolInstanceStatus | None = None
    queue_length: int = 0
    conditions: tuple[Condition, ...] = ()


class Pool(Model, frozen=True):
    """AvatarPool."""

    metadata: Meta
    spec: PoolSpec
    status: PoolStatus = PoolStatus()


# ---- Avatar -------------------------------------------------------------------


class PvcSource(Model, frozen=True):
    """Avatar data in a PersistentVolumeClaim."""

    claim_name: str
    sub_path: str = ""


class ImageSource(Model, frozen=True):
    """Avatar data in an OCI image (image volume)."""

    reference: str
    pull_policy: str = "IfNotPresent"


class HostPathSource(Model, frozen=True):
    """Avatar data in a directory of the node."""

    path: str


class AvatarData(Model, frozen=True):
    """Where an avatar's files are: exactly one of these."""

    built_in: bool = False
    pvc: PvcSource | None = None
    image: ImageSource | None = None
    host_path: HostPathSource | None = None


class TtsChoice(Model, frozen=True):
    """An engine and a voice; empty = the next level's."""

    engine: str = ""
    voice: str = ""


class AvatarSpec(Model, frozen=True):
    """Avatar.spec: the old per-avatar config.json."""

    avatar_name: str
    data: AvatarData = AvatarData(built_in=True)
    model: str = ""
    transport: str = ""
    max_sessions: int | None = None
    tts: TtsChoice = TtsChoice()
    vram_mib: int | None = field(default=None, name="vramMiB")
    min_free_mib: int | None = field(default=None, name="minFreeMiB")
    keep_warm: bool = False


class VramStatus(Model, frozen=True):
    """Avatar.status.vram: the most that a pod was seen to use, and what the next one reserves because of it; MiB."""

    observed_mib: int = field(default=0, name="observedMiB")
    estimate_mib: int = field(default=0, name="estimateMiB")


class AvatarStatus(Model, frozen=True):
    """Avatar.status."""

    observed_generation: int = 0
    vram: VramStatus | None = None
    conditions: tuple[Condition, ...] = ()


class Avatar(Model, frozen=True):
    """Avatar."""

    metadata: Meta
    spec: AvatarSpec
    status: AvatarStatus = AvatarStatus()


# ---- AvatarInstance -----------------------------------------------------------


class InstanceIdle(Model, frozen=True):
    """Overrides of the pool's idle rules."""

    timeout_seconds: int | None = None
    action: str = ""


class InstanceSpec(Model, frozen=True):
    """AvatarInstance.spec."""

    avatar_name: str
    avatar_id: str = ""
    pool_ref: str = "default"
    exclusive: bool = False
    model: str = ""
    transport: str = ""
    max_sessions: int | None = None
    tts: TtsChoice = TtsChoice()
    idle: InstanceIdle = InstanceIdle()
    startup_timeout_seconds: int | None = None


class Session(Model, frozen=True):
    """status.sessions[]: one user's session, kept by a backend or the REST API.

    ``runtime_session_id``: what the runtime calls it, where its offer went through the REST API.
    """

    id: str
    user: str = ""
    since: datetime | None = None
    expires: datetime | None = None
    ttl_seconds: int | None = None
    runtime_session_id: str = ""


class GpuStatus(Model, frozen=True):
    """status.gpu; ``index`` is None, and ``uuid`` empty, until it is known which one it is."""

    node: str = ""
    index: int | None = None
    uuid: str = ""
    reserved_mib: int = field(default=0, name="reservedMiB")


class MediaStatus(Model, frozen=True):
    """status.media: where peers find the audio and video; see the CRD and docs/media.md.

    ``host`` stands in an answer's candidates instead of the pod's own address;
    empty: nothing is rewritten. ``reachable`` is True, False or Unknown.
    """

    mode: str = ""
    host: str = ""
    candidates: tuple[str, ...] = ()
    udp_port_range: str = ""
    reachable: str = "Unknown"
    message: str = ""


class LastTermination(Model, frozen=True):
    """status.lastTermination: why the last pod of this instance ended."""

    time: datetime | None = None
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    idle_seconds: int | None = None
    pod_uid: str = ""


class InstanceStatus(Model, frozen=True):
    """AvatarInstance.status. ``connections`` and ``sessions`` belong to backends."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] = ()
    observed_generation: int = 0
    port: int | None = None
    webrtc_url: str | None = None
    node: str | None = None
    gpu: GpuStatus | None = None
    media: MediaStatus | None = None
    pod_name: str | None = None
    connections: int = 0
    sessions: tuple[Session, ...] = ()
    observed_sessions: int | None = None
    last_activity_time: datetime | None = None
    idle_deadline: datetime | None = None
    drain_deadline: datetime | None = None
    start_time: datetime | None = None
    ready_time: datetime | None = None
    retry_time: datetime | None = None
    restarts: int = 0
    last_termination: LastTermination | None = None
    shared_with: str | None = None
    queue_position: int | None = None


class Instance(Model, frozen=True):
    """AvatarInstance."""

    metadata: InstanceMeta
    spec: InstanceSpec
    status: InstanceStatus = InstanceStatus()

    @property
    def age_key(self) -> tuple[datetime, str]:
        """Sort key: oldest first, equal seconds by name."""
        created = self.metadata.creation_timestamp
        if created is None:
            raise ValueError(f"AvatarInstance {self.metadata.name} has no creationTimestamp")
        return created, self.metadata.name

    @property
    def counted_connections(self) -> int:
        """Connections that somebody counted: the number, or the session records if more."""
        return max(self.status.connections, len(self.status.sessions))

    @property
    def counted_since(self) -> datetime | None:
        """When somebody else than the operator changed a count here last (whole seconds); None = nobody has."""
        told = (
            entry.time
            for entry in self.metadata.managed_fields
            if entry.manager != MANAGER and entry.fields_v1.status != _NO_COUNTS
        )
        return max((time for time in told if time is not None), default=None)


# ---- Pod and Service, as far as they matter ------------------------------------


class Terminated(Model, frozen=True):
    """containerStatuses[].state.terminated."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


class Waiting(Model, frozen=True):
    """containerStatuses[].state.waiting."""

    reason: str = ""
    message: str = ""


class Running(Model, frozen=True):
    """containerStatuses[].state.running."""

    started_at: datetime | None = None


class ContainerState(Model, frozen=True):
    """containerStatuses[].state: one of the three."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Model, frozen=True):
    """status.containerStatuses[]."""

    name: str
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodClaim(Model, frozen=True):
    """spec.resourceClaims[]."""

    name: str
    resource_claim_name: str = ""


class PodSpec(Model, frozen=True):
    """The parts of a Pod's spec that decisions read."""

    node_name: str = ""
    resource_claims: tuple[PodClaim, ...] = ()


class PodStatus(Model, frozen=True):
    """The parts of a Pod's status that decisions read."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    pod_ip: str = field(default="", name="podIP")
    host_ip: str = field(default="", name="hostIP")
    start_time: datetime | None = None


class Pod(Model, frozen=True):
    """A runtime Pod."""

    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type, if the pod has it."""
        return next((c for c in self.status.conditions if c.type == kind), None)

    @property
    def ready_since(self) -> datetime | None:
        """Since when the kubelet has called it ready; None = it does not."""
        ready = self.condition("Ready")
        return ready.last_transition_time if ready is not None and ready.status == "True" else None


class ServicePort(Model, frozen=True):
    """spec.ports[] of a Service."""

    name: str = ""
    port: int = 0
    target_port: int | str = 0
    protocol: str = "TCP"


class ServiceSpec(Model, frozen=True):
    """The parts of a Service's spec that the operator decides: where it leads."""

    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()
    publish_not_ready_addresses: bool = False


class Service(Model, frozen=True):
    """A Service that claims a port, or the address of a speech engine."""

    metadata: Meta
    spec: ServiceSpec = ServiceSpec()
