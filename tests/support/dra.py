"""A DRA driver of ours: publishes GPUs that pods can share by memory, as NVIDIA's does with its consumable shares.

There is nothing to prepare on a node that kwok plays, so publishing is all of it. The scheduler does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from .api import Api, Json, Refused

DRIVER = "gpu.nvidia.com"
SLICES = "resource.k8s.io/v1/resourceslices"
CLASSES = "resource.k8s.io/v1/deviceclasses"
CLAIMS = "resource.k8s.io/v1/resourceclaims"


@dataclass(frozen=True)
class FakeGpu:
    """A GPU; ``shared``: more than one claim may have a part of it."""

    uuid: str
    index: int = 0
    product: str = "NVIDIA L4"
    mib: int = 24 * 1024
    shared: bool = True

    def device(self) -> Json:
        """As it stands in a ResourceSlice."""
        total = f"{self.mib}Mi"
        memory: Json = {"value": total}
        if self.shared:
            memory["requestPolicy"] = {"default": total, "validRange": {"min": "1Mi", "step": "1Mi"}}
        return {
            "name": f"gpu-{self.index}",
            "attributes": {
                "uuid": {"string": self.uuid},
                "productName": {"string": self.product},
                "index": {"int": self.index},
                "type": {"string": "gpu"},
            },
            "capacity": {"memory": memory},
            **({"allowMultipleAllocations": True} if self.shared else {}),
        }


async def install(api: Api) -> None:
    """The DeviceClass; it stays, as a driver's does."""
    expression = f'device.driver == "{DRIVER}" && device.attributes["{DRIVER}"].type == "gpu"'
    body: Json = {"metadata": {"name": DRIVER}, "spec": {"selectors": [{"cel": {"expression": expression}}]}}
    try:
        await api.create(CLASSES, "", body)
    except Refused as refused:
        if refused.status != 409:
            raise


async def publish(api: Api, node: str, *gpus: FakeGpu) -> Json:
    """The ResourceSlice of a node; it goes with the node."""
    owner = await api.get("nodes", "", node)
    assert owner is not None, f"there is no node {node}"
    reference = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": owner["metadata"]["uid"]}
    body: Json = {
        "metadata": {"name": f"{node}-{DRIVER}", "ownerReferences": [reference]},
        "spec": {
            "driver": DRIVER,
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [gpu.device() for gpu in gpus],
        },
    }
    return await api.create(SLICES, "", body)
