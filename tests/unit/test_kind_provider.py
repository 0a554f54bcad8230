"""devcluster's provider kind: what it asks of docker, kind and kubectl. The programs are played; no cluster is made."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from devcluster import cli, provider
from devcluster.errors import DevclusterError
from devcluster.layout import Layout
from devcluster.providers import kind

# Plays kind and kubectl: a file says whether the cluster is there, another keeps what was asked.
PLAYED = """#!/bin/sh
echo "$(basename "$0") $*" >> "$PLAYED/asked"
case "$(basename "$0") $*" in
    "docker info") [ ! -e "$PLAYED/docker-is-down" ] ;;
    "kind get clusters") cat "$PLAYED/clusters" 2> /dev/null || echo "No kind clusters found." >&2 ;;
    "kind create cluster --name "*)
        echo "$4" > "$PLAYED/clusters"
        cp "$6" "$PLAYED/config.json"
        echo "apiVersion: v1" > "$8" ;;
    "kind delete cluster "*) rm -f "$PLAYED/clusters" ;;
    *"get --raw=/readyz"*) [ ! -e "$PLAYED/sick" ] && echo ok ;;
    *"get nodes"*)
        ready='{"type": "Ready", "status": "True"}'
        echo '{"items": [{"metadata": {"name": "n"}, "status": {"conditions": ['"$ready"']}}]}' ;;
esac
"""


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with the played programs, and folders of this test's own."""
    (tmp_path / "bin").mkdir()
    for program in ("docker", "kind", "kubectl"):
        file = tmp_path / "bin" / program
        file.write_text(PLAYED)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PLAYED", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("DEVCLUSTER_PROVIDER", raising=False)
    return tmp_path


def asked(played: Path, word: str) -> list[str]:
    """What was asked for so far, and has the word."""
    return [line for line in (played / "asked").read_text().splitlines() if word in line]


def test_up_makes_a_cluster_with_the_ports_and_only_once(played: Path) -> None:
    layout = Layout("try")
    kind.Kind(layout).up()
    config = json.loads((played / "config.json").read_text())
    ports = [each["hostPort"] for each in config["nodes"][0]["extraPortMappings"]]
    assert ports == [8615, 8616, 8617, 8618, 8619, 8607]
    assert {each["listenAddress"] for each in config["nodes"][0]["extraPortMappings"]} == {"127.0.0.1"}
    assert layout.facts()["provider"] == "kind"
    assert kind.Kind(layout).healthy()
    kind.Kind(layout).up()
    assert len(asked(played, "create cluster")) == 1


def test_a_cluster_that_does_not_answer_is_made_anew(played: Path) -> None:
    kind.Kind(Layout("try")).up()
    (played / "sick").touch()
    kind.Kind(Layout("try")).up()
    assert len(asked(played, "create cluster")) == 2
    assert len(asked(played, "delete cluster")) == 1


def test_images_are_loaded_once(played: Path) -> None:
    found = kind.Kind(Layout("try"))
    found.up()
    archive = played / "operator.tar"
    archive.write_bytes(b"an image")
    found.load_images([archive])
    found.load_images([archive])
    assert asked(played, "load image-archive") == [f"kind load image-archive {archive} --name try"]
    archive.write_bytes(b"another image")
    found.load_images([archive])
    assert len(asked(played, "load image-archive")) == 2


def test_down_leaves_nothing_and_may_be_repeated(played: Path) -> None:
    found = kind.Kind(Layout("try"))
    found.up()
    assert found.down() == []
    assert found.down() == []
    assert not Layout("try").state.exists()
    assert len(asked(played, "delete cluster")) == 1


def test_without_docker_it_says_what_to_take(played: Path) -> None:
    (played / "docker-is-down").touch()
    assert kind.why_not() == "`docker info` fails: is Docker running, and may you use it?"
    with pytest.raises(DevclusterError, match="kind cannot be used"):
        kind.Kind(Layout("try")).up()
    (played / "bin/kind").unlink()
    assert kind.why_not() == "there is no kind"


def test_the_environment_chooses_it(
    played: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEVCLUSTER_PROVIDER", "kind")
    assert cli.main(["--name", "try", "up"]) == 0
    assert isinstance(provider.choose(Layout("try"), None, None), kind.Kind)
    assert "kubectl (of your path)" in capsys.readouterr().out
    assert cli.main(["--name", "try", "binaries"]) == 0
    assert capsys.readouterr().out.strip() == str(played / "bin"), "nothing is built for it"
    assert cli.main(["--name", "try", "status"]) == 0
    assert "there" in capsys.readouterr().out
    assert cli.main(["--name", "try", "fake-nodes", "1"]) == 1
    assert "run kwok" in capsys.readouterr().err
    assert cli.main(["--name", "try", "down"]) == 0
    monkeypatch.setenv("DEVCLUSTER_PROVIDER", "native")
    assert kind.Kind(Layout("try")).enter(["ls"]) == ["docker", "exec", "-i", "try-control-plane", "ls"]
