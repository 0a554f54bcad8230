"""The JSON patch that sets fields of a custom resource's status."""

from __future__ import annotations

from typing import Any

import pytest

from avatar_operator.domain.resources import InstanceStatus
from avatar_operator.kube.client import status_operations
from tests.unit.builders import instance

TEST = {"op": "test", "path": "/metadata/uid", "value": "u-1"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, []),
        ({"phase": "Running"}, [{"op": "add", "path": "/status/phase", "value": "Running"}]),
        (
            {"podName": None},
            [{"op": "add", "path": "/status/podName", "value": None}, {"op": "remove", "path": "/status/podName"}],
        ),
        (
            {"gpu": {"node": "a", "index": None}, "conditions": [{"type": "Ready", "lastTransitionTime": None}]},
            [
                {"op": "add", "path": "/status/gpu", "value": {"node": "a"}},
                {"op": "add", "path": "/status/conditions", "value": [{"type": "Ready"}]},
            ],
        ),
        (
            {"connections": 0, "message": ""},
            [
                {"op": "add", "path": "/status/connections", "value": 0},
                {"op": "add", "path": "/status/message", "value": ""},
            ],
        ),
    ],
    ids=["nothing", "set", "removed", "nulls inside", "empty is a value"],
)
def test_operations(status: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    assert status_operations(instance(metadata={"uid": "u-1"}), status) == [TEST, *expected]


def test_a_state_that_is_not_the_one_that_was_known_takes_no_patch() -> None:
    """Of an old state's phase the rest would be laid over another phase."""
    known = instance(status=InstanceStatus(phase="Starting", reason="Starting", port=8615, connections=3))
    tests = [o for o in status_operations(known, {"reason": "PodLost", "port": None}) if o["op"] == "test"]
    assert [(o["path"], o["value"]) for o in tests] == [
        ("/metadata/uid", known.metadata.uid),
        ("/status/phase", "Starting"),
        ("/status/reason", "Starting"),
        ("/status/port", 8615),
    ]
