"""A backend without the REST API: it makes AvatarInstances and counts connections in their status.

Only the official `kubernetes` client is used. The count is changed by compare-and-swap (a JSON patch with a test), so
any number of backends may count the same instance.

    python backend.py connect ada        # creates the instance, waits until it runs, counts one connection
    python backend.py disconnect ada
"""

from __future__ import annotations

import random
import sys
import time
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client import ApiException, CustomObjectsApi

GROUP, VERSION, PLURAL = "avatars.virtualtutor.io", "v1alpha1", "avatarinstances"
TRIES = 100


class Avatars:
    """AvatarInstances of one namespace, one for each avatar, named by ``name``."""

    def __init__(self, api: CustomObjectsApi, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    def connect(self, name: str, avatar_name: str, timeout: float = 35) -> dict[str, Any]:
        """Count one connection and wait until the avatar serves; its status then."""
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "AvatarInstance",
            "metadata": {"name": name},
            "spec": {"avatarName": avatar_name},
        }
        for _ in range(TRIES):
            try:
                self.api.create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, body)
            except ApiException as error:
                if error.status != 409:
                    raise
            # Collected in this very moment? Then it is made anew.
            if self.count(name, +1) is not None:
                return self.until_it_serves(name, timeout)
        raise RuntimeError(f"{name} is deleted again and again")

    def disconnect(self, name: str) -> int | None:
        """Count one connection less, never below 0; None when the instance is gone."""
        return self.count(name, -1)

    def count(self, name: str, step: int) -> int | None:
        """Change status.connections by ``step``; the count after it."""
        for attempt in range(TRIES):
            found = self.get(name)
            if found is None:
                return None
            before = found.get("status", {}).get("connections")
            after = max(0, (before or 0) + step)
            if after == before:
                return after
            version = found["metadata"]["resourceVersion"]
            patch: list[dict[str, Any]] = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
            if "status" not in found:
                patch.append({"op": "add", "path": "/status", "value": {}})
            patch.append({"op": "add", "path": "/status/connections", "value": after})
            try:
                self.api.patch_namespaced_custom_object_status(
                    GROUP, VERSION, self.namespace, PLURAL, name, patch, _content_type="application/json-patch+json"
                )
            except ApiException as error:
                if error.status == 404:
                    return None
                # Somebody else was faster: the test failed.
                if error.status not in (409, 422):
                    raise
                time.sleep(random.uniform(0, 0.01 * min(2**attempt, 50)))
            else:
                return after
        raise RuntimeError(f"{name} changes too often to count")

    def get(self, name: str) -> dict[str, Any] | None:
        """The AvatarInstance, or None."""
        try:
            found: dict[str, Any] = self.api.get_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return found

    def until_it_serves(self, name: str, timeout: float) -> dict[str, Any]:
        """Wait by a watch, not by asking again and again."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            stream = watch.Watch().stream(
                self.api.list_namespaced_custom_object,
                GROUP,
                VERSION,
                self.namespace,
                PLURAL,
                field_selector=f"metadata.name={name}",
                timeout_seconds=max(1, int(left)),
            )
            for event in stream:
                status: dict[str, Any] = event["object"].get("status", {})
                if status.get("phase") in ("Running", "Shared") and status.get("webrtcUrl"):
                    return status
                if status.get("phase") == "Failed":
                    raise RuntimeError(f"{name}: {status.get('message')}")
        raise TimeoutError(f"{name} does not serve after {timeout:.0f} s")


def main() -> None:
    """The command line."""
    verb, avatar = sys.argv[1:3]
    config.load_config()
    namespace = config.list_kube_config_contexts()[1]["context"].get("namespace", "default")
    avatars = Avatars(client.CustomObjectsApi(), namespace)
    if verb == "connect":
        status = avatars.connect(avatar, avatar)
        print(status["webrtcUrl"], status["connections"])
    else:
        print(avatars.disconnect(avatar))


if __name__ == "__main__":
    main()
