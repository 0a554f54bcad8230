"""What is offered for a word that is begun."""

from __future__ import annotations

import subprocess

import pytest

from avatar_operator.plugin.app import app
from avatar_operator.plugin.completion import FILES, NO_FILES, Candidate, complete, script
from avatar_operator.plugin.link import Target

CLUSTER = {
    "avatars": ["ada", "bob", "grace-hopper"],
    "instances": ["ada-1", "bob-2"],
    "pools": ["default", "gpu"],
    "engines": ["edgetts"],
    "namespaces": ["live", "test"],
    "contexts": ["here", "there"],
}


def offered(*words: str) -> tuple[list[str], int]:
    def look(kind: str, target: Target) -> list[Candidate]:
        return [Candidate(word) for word in CLUSTER[kind]]

    found, directive = complete(app, words, look)
    return [each.word for each in found], directive


@pytest.mark.parametrize(
    ("words", "candidates"),
    [
        (("st",), ["start", "stop"]),
        (("start", ""), ["ada", "bob", "grace-hopper"]),
        (("start", "a"), ["ada"]),
        (("start", "ada", ""), []),
        (("stop", "ada-1", ""), ["ada-1", "bob-2"]),
        (("talk", "b"), ["bob-2"]),
        (("talk", "bob-2", ""), []),
        (("start", "--pool", "g"), ["gpu"]),
        (("start", "--exclusive", ""), ["ada", "bob", "grace-hopper"]),
        (("start", "--pool", "gpu", "--tts", ""), ["edgetts"]),
        (("list", "-n", ""), ["live", "test"]),
        (("-n", "live", "to"), ["top"]),
        (("--context", "t"), ["there"]),
        (("list", "-o", "y"), ["yaml"]),
        (("top", "--on"), ["--once"]),
        (("completion", ""), ["bash", "fish", "zsh"]),
        (("version", ""), []),
        (("no-such-command", ""), []),
        ((), ["completion", "list", "logs", "pool", "start", "stop", "talk", "top", "version"]),
    ],
)
def test_offers(words: tuple[str, ...], candidates: list[str]) -> None:
    assert offered(*words) == (candidates, NO_FILES)


def test_files() -> None:
    assert offered("list", "--kubeconfig", "") == ([], FILES)
    assert offered("talk", "ada", "hello", "--save", "x") == ([], FILES)


def test_the_cluster_is_asked_where_the_options_say() -> None:
    asked: list[Target] = []

    def look(kind: str, target: Target) -> list[Candidate]:
        asked.append(target)
        return []

    complete(app, ["-n", "live", "--context=there", "stop", "--force", ""], look)
    assert asked == [Target("live", "there", "")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_ask_the_helper(shell: str) -> None:
    assert "kubectl_complete-avatar" in script(shell)


def test_bash_completes_by_its_script(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A real bash: names with blanks come quoted."""
    helper = tmp_path / "kubectl_complete-avatar"
    helper.write_text('#!/bin/sh\nprintf "%s\\n" "args $*" "Ada Lovelace\tavatar" ":4"\n')
    helper.chmod(0o755)
    code = script("bash") + "\n".join(
        (
            'COMP_WORDS=(kubectl-avatar start "A"); COMP_CWORD=2; _kubectl_avatar',
            'printf "%s\\n" "${COMPREPLY[@]}"',
        )
    )
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", code], env=env, capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.splitlines() == ["args\\ start\\ A", "Ada\\ Lovelace"]
