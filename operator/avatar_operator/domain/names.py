"""The names that resources, labels and annotations have, in one place."""

from __future__ import annotations

import hashlib

GROUP = "avatars.virtualtutor.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
MANAGER = "avatar-operator"

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_COMPONENT = "app.kubernetes.io/component"
COMPONENT = "avatar-runtime"
LABEL_POOL = f"{GROUP}/pool"
LABEL_GROUP = f"{GROUP}/group"
LABEL_PORT = f"{GROUP}/port"
ANNOTATION_AVATAR = f"{GROUP}/avatar-name"
ANNOTATION_TEMPLATE = f"{GROUP}/template"

RUNTIME_CONTAINER = "runtime"
SELECTOR = f"{LABEL_MANAGED_BY}={MANAGER},{LABEL_COMPONENT}={COMPONENT}"


def claim_name(port: int) -> str:
    """Name of the Service that claims ``port`` and of the Pod behind it.

    The name is the claim: within a namespace the API server lets only one
    Service and one Pod have it (design §4, Port claim).
    """
    return f"avatar-{port}"


def group_id(pool: str, avatar_name: str, exclusive_uid: str = "") -> str:
    """Label value shared by everything that serves one avatar in one pool.

    An avatar's name is data (spaces, any script) and never an object name, so
    it is hashed. An exclusive instance has a group of its own, by its UID.
    """
    text = "\0".join((pool, avatar_name, exclusive_uid))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
