"""The resources that the operator works with."""

from __future__ import annotations

from typing import TypeVar

from avatar_operator.domain.gpunode import GpuNode, Node
from avatar_operator.domain.names import GROUP, VERSION
from avatar_operator.domain.resources import Avatar, Instance, Pod, Pool, Service
from avatar_operator.domain.tts import Deployment, TtsEngine
from avatar_operator.kube.client import Resource

INSTANCES = Resource(GROUP, VERSION, "avatarinstances")
AVATARS = Resource(GROUP, VERSION, "avatars")
POOLS = Resource(GROUP, VERSION, "avatarpools")
GPUNODES = Resource(GROUP, VERSION, "gpunodes")
ENGINES = Resource(GROUP, VERSION, "ttsengines")
NODES = Resource("", "v1", "nodes")
PODS = Resource("", "v1", "pods")
SERVICES = Resource("", "v1", "services")
DEPLOYMENTS = Resource("apps", "v1", "deployments")
EVENTS = Resource("", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
BUDGETS = Resource("policy", "v1", "poddisruptionbudgets")
RESOURCE_CLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims")
RESOURCE_SLICES = Resource("resource.k8s.io", "v1", "resourceslices")

K = TypeVar("K", Pool, Avatar, Instance, Pod, Service, GpuNode, Node, TtsEngine, Deployment)
AnyObject = Pool | Avatar | Instance | Pod | Service | GpuNode | Node | TtsEngine | Deployment
