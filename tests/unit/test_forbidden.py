"""What the API server forbids is told by resource, and taken back when it is allowed again."""

from __future__ import annotations

import logging

import pytest
from yarl import URL

from avatar_operator.controller.forbidden import Forbidden

HOST = "https://api.example"


@pytest.mark.parametrize(
    ("path", "says", "rule"),
    [
        ("/api/v1/pods?watch=true", "watch pods", 'apiGroups: [""], resources: [pods]'),
        (
            "/apis/avatars.virtualtutor.io/v1alpha1/namespaces/live/avatars?watch=true",
            "watch avatars in namespace live",
            'apiGroups: ["avatars.virtualtutor.io"], resources: [avatars]',
        ),
        ("/api/v1/nodes", "list nodes", 'apiGroups: [""], resources: [nodes]'),
    ],
)
def test_it_names_the_resource_and_the_rule_once(
    path: str, says: str, rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard, url = Forbidden(), URL(HOST + path)
    with caplog.at_level(logging.ERROR):
        heard.heard("GET", url, 403)
        heard.heard("GET", url, 403)
    assert says in heard.problem()
    assert len(caplog.messages) == 1
    assert rule in caplog.messages[0]
    heard.heard("GET", url, 200)
    assert heard.problem() == ""


def test_a_list_that_is_allowed_says_nothing_of_the_watch() -> None:
    heard = Forbidden()
    heard.heard("GET", URL(f"{HOST}/api/v1/pods?watch=true"), 403)
    heard.heard("GET", URL(f"{HOST}/api/v1/pods"), 200)
    heard.heard("GET", URL(f"{HOST}/api/v1/pods?watch=true"), 503)
    assert "watch pods" in heard.problem()


@pytest.mark.parametrize(("method", "status"), [("PATCH", 403), ("GET", 200), ("GET", 503), ("GET", 410)])
def test_other_answers_are_none_of_its_business(method: str, status: int) -> None:
    heard = Forbidden()
    heard.heard(method, URL(f"{HOST}/api/v1/pods?watch=true"), status)
    assert heard.problem() == ""
