"""What the API server's answer to a pod's deletion says of the pod."""

from __future__ import annotations

from typing import Any

import pytest

from avatar_operator.controller.executor import ends_later


@pytest.mark.parametrize(
    ("answer", "later"),
    [
        ({"kind": "Pod", "metadata": {"deletionTimestamp": "t", "deletionGracePeriodSeconds": 6}}, True),
        ({"kind": "Pod", "metadata": {"deletionTimestamp": "t", "deletionGracePeriodSeconds": 0}}, False),
        (
            {
                "kind": "Pod",
                "metadata": {"deletionTimestamp": "t", "deletionGracePeriodSeconds": 0, "finalizers": ["a/b"]},
            },
            True,
        ),
        ({"kind": "Pod", "metadata": {"resourceVersion": "7"}}, False),
        ({"kind": "Status", "status": "Success"}, False),
    ],
    ids=["graceful", "had failed", "held by a finalizer", "on no node", "a status"],
)
def test_whether_it_ends_later(answer: dict[str, Any], later: bool) -> None:
    assert ends_later(answer) is later
