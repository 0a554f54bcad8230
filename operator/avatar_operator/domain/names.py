"""The names that resources, labels and annotations have, in one place."""

from __future__ import annotations

import hashlib
import re

GROUP = "avatars.virtualtutor.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
MANAGER = "avatar-operator"

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_COMPONENT = "app.kubernetes.io/component"
COMPONENT = "avatar-runtime"
TTS_COMPONENT = "tts-engine"
LABEL_POOL = f"{GROUP}/pool"
LABEL_GROUP = f"{GROUP}/group"
LABEL_PORT = f"{GROUP}/port"
LABEL_CREATED_BY = f"{GROUP}/created-by"
LABEL_GPU = f"{GROUP}/gpu"
ANNOTATION_GPU_NODE = f"{GROUP}/gpu-node"
ANNOTATION_GPU_INDEX = f"{GROUP}/gpu-index"
ANNOTATION_GPU_MIB = f"{GROUP}/gpu-mib"
ANNOTATION_AVATAR = f"{GROUP}/avatar-name"
ANNOTATION_TEMPLATE = f"{GROUP}/template"
LABEL_TTS = f"{GROUP}/tts-engine"
ANNOTATION_TTS = f"{GROUP}/tts-engine"
# Whether a pod may be evicted: for the pool's disruption budget, and for the cluster autoscaler.
LABEL_IN_USE = f"{GROUP}/in-use"
ANNOTATION_SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"

RUNTIME_CONTAINER = "runtime"
# What belongs to avatars and to speech engines: both reserve GPUs.
SELECTOR = f"{LABEL_MANAGED_BY}={MANAGER},{LABEL_COMPONENT} in ({COMPONENT},{TTS_COMPONENT})"
TTS_SELECTOR = f"{LABEL_MANAGED_BY}={MANAGER},{LABEL_COMPONENT}={TTS_COMPONENT}"


def claim_name(port: int) -> str:
    """Name of the Service that claims ``port`` and of the Pod behind it.

    The name is the claim: within a namespace the API server lets only one
    Service and one Pod have it (design §4, Port claim).
    """
    return f"avatar-{port}"


def budget_name(pool: str) -> str:
    """Name of the PodDisruptionBudget of an AvatarPool."""
    return f"avatars-in-use-{pool}"


def tts_name(engine: str) -> str:
    """Name of the Deployment and the Service of a TTSEngine."""
    return f"tts-{engine}"


def group_id(pool: str, avatar_name: str, exclusive_uid: str = "") -> str:
    """Label value shared by everything that serves one avatar in one pool.

    An avatar's name is data (spaces, any script) and never an object name, so
    it is hashed. An exclusive instance has a group of its own, by its UID.
    """
    text = "\0".join((pool, avatar_name, exclusive_uid))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def instance_name(pool: str, avatar_name: str, ordinal: int = 0) -> str:
    """Name of the AvatarInstance that the REST API keeps for an avatar in a pool.

    Everybody who starts the same avatar comes to the same name, so creating it
    is get-or-create: the API server lets only one be made. ``ordinal`` counts
    the further ones that a pool with ``sessions.spill: Spill`` may have. At
    most 63 characters; the readable part is for people, the hash is the name.
    """
    digest = hashlib.sha256("\0".join((pool, avatar_name)).encode()).hexdigest()[:10]
    words = re.sub(r"[^a-z0-9]+", "-", avatar_name.lower()).strip("-")[:40].strip("-") or "avatar"
    return f"{words}-{digest}" + (f"-{ordinal + 1}" if ordinal else "")
