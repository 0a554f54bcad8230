"""What the API server forbids a stream is told by resource, and taken back when it is allowed again."""

from __future__ import annotations

import logging

import pytest

from avatar_operator.domain.resources import Meta, Model
from avatar_operator.kube.client import Resource
from avatar_operator.kube.errors import ApiError
from avatar_operator.kube.kinds import AVATARS, NODES, PODS
from avatar_operator.kube.reflector import Reflector

DENIED = ApiError(403, "Forbidden", "no")


class Thing(Model, frozen=True):
    """An object of any kind."""

    metadata: Meta


def stream(resource: Resource, namespace: str = "") -> Reflector[Thing]:
    """One that asks nobody, so that it needs no client."""
    return Reflector(None, resource, Thing, namespace)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("resource", "namespace", "verb", "says", "rule"),
    [
        (PODS, "", "watch", "watch pods", 'apiGroups: [""], resources: [pods]'),
        (
            AVATARS,
            "live",
            "watch",
            "watch avatars in namespace live",
            'apiGroups: ["avatars.virtualtutor.io"], resources: [avatars]',
        ),
        (NODES, "", "list", "list nodes", 'apiGroups: [""], resources: [nodes]'),
    ],
)
def test_it_names_the_resource_and_the_rule_once(
    resource: Resource, namespace: str, verb: str, says: str, rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard = stream(resource, namespace)
    with caplog.at_level(logging.ERROR):
        heard._refused(verb, DENIED)
        heard._refused(verb, DENIED)
    assert heard.forbidden == says
    assert len(caplog.messages) == 1
    assert rule in caplog.messages[0]
    heard._allowed(verb)
    assert heard.forbidden == ""


def test_a_list_that_is_allowed_says_nothing_of_the_watch() -> None:
    heard = stream(PODS)
    heard._refused("watch", DENIED)
    heard._allowed("list")
    heard._refused("watch", ApiError(503, "Busy", "later"))
    assert heard.forbidden == "watch pods"


@pytest.mark.parametrize("status", [0, 410, 503])
def test_other_failures_forbid_nothing(status: int) -> None:
    heard = stream(PODS)
    heard._refused("watch", ApiError(status, "Other", "later"))
    assert heard.forbidden == ""
