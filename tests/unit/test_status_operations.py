"""The JSON patch that sets fields of a custom resource's status."""

from __future__ import annotations

from typing import Any

import pytest

from avatar_operator.kube.client import status_operations

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
    assert status_operations("u-1", status) == [TEST, *expected]
