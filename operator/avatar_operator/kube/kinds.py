"""The resources that the operator works with."""

from __future__ import annotations

from avatar_operator.domain.names import GROUP, VERSION
from avatar_operator.kube.client import Resource

INSTANCES = Resource(GROUP, VERSION, "avatarinstances")
AVATARS = Resource(GROUP, VERSION, "avatars")
POOLS = Resource(GROUP, VERSION, "avatarpools")
PODS = Resource("", "v1", "pods")
SERVICES = Resource("", "v1", "services")
EVENTS = Resource("", "v1", "events")
