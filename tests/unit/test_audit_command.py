"""`avatar-operator audit`: what it prints, and how it ends where it cannot look; tests/cluster has the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from avatar_operator.cli.audit import _json, _table
from avatar_operator.cli.main import app
from avatar_operator.controller.look import Seen
from avatar_operator.domain.audit import audit
from avatar_operator.domain.findings import RULES
from tests.support.operator import free_port
from tests.unit.test_audit import BROKEN, GOOD


def test_the_table_is_aligned_and_says_the_remedy_below() -> None:
    picture = BROKEN["a claim that nobody wants"][2]
    findings = [*audit(picture), *audit(BROKEN["a port without a pod"][2])]
    head, first, remedy, second, _, last = _table(Seen(picture), findings).splitlines()
    columns = {"KIND": "ClaimWithoutInstance", "OBJECT": "Service/avatar-8617", "MESSAGE": "Service avatar-8617"}
    assert {t: head.index(t) for t in columns} == {t: first.index(c) for t, c in columns.items()}
    assert head.index("KIND") == second.index("StatusPortWrong")
    assert remedy.strip() == f"→ {RULES['ClaimWithoutInstance'].remedy}"
    assert remedy.index("→") == head.index("MESSAGE")
    assert last == "2 inconsistencies in 6 instances, 4 pods, 4 claims, 2 pools, 2 engines, 1 GPU node"


def test_a_consistent_picture_is_one_line() -> None:
    expected = "consistent: 6 instances, 4 pods, 3 claims, 2 pools, 2 engines, 1 GPU node"
    assert _table(Seen(GOOD), []) == expected


def test_json_has_all_that_the_table_has() -> None:
    picture = BROKEN["a claim that nobody wants"][2]
    body = json.loads(_json(Seen(picture, skipped=("gpunodes: no",)), audit(picture)))
    (found,) = body.pop("findings")
    assert body == {
        "consistent": False,
        "checked": {"instances": 6, "pods": 4, "claims": 4, "pools": 2, "engines": 2, "gpuNodes": 1},
        "skipped": ["gpunodes: no"],
    }
    assert found["object"]["name"] == "avatar-8617"
    assert (found["kind"], found["severity"]) == ("ClaimWithoutInstance", "Error")
    assert found["remedy"] == RULES["ClaimWithoutInstance"].remedy


@pytest.fixture
def nobody_there(tmp_path: Path) -> Path:
    """A kubeconfig of an API server that does not answer."""
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}],
        "users": [{"name": "c", "user": {"token": "t"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def test_an_api_server_that_does_not_answer_is_exit_code_2(nobody_there: Path) -> None:
    done = CliRunner().invoke(app, ["audit", f"--kubeconfig={nobody_there}"])
    assert done.exit_code == 2
    assert "cannot look: 0 Unreachable: GET /apis/avatars.virtualtutor.io/" in done.stderr
    assert not done.stdout


def test_no_kubeconfig_is_exit_code_2(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["audit", f"--kubeconfig={tmp_path / 'none'}"])
    assert done.exit_code == 2
    assert "none" in done.stderr
    assert not done.stdout
