"""Completion: by kubectl's helper `kubectl_complete-avatar`, and for shells that call `kubectl-avatar` itself.

kubectl runs the helper with the words after `avatar`, the last of which is
begun, and reads a candidate a line (with its description after a tab) and at
last a colon and a number: 4 = candidates only, 0 = file names, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer.main

from avatar_operator.kube import kubeconfig
from avatar_operator.kube.client import Resource
from avatar_operator.kube.credentials import CredentialsError
from avatar_operator.kube.errors import ApiError
from avatar_operator.kube.kinds import ENGINES, POOLS

from .link import Link, Target
from .listing import state

# Who presses TAB does not wait for long.
LOOK_SECONDS = 2.0
NO_FILES, FILES = 4, 0


class Candidate(NamedTuple):
    """A word and what it is."""

    word: str
    about: str = ""


Look = Callable[[str, Target], list[Candidate]]

FIXED = {"outputs": ("table", "wide", "json", "yaml", "name"), "shells": ("bash", "zsh", "fish")}
# What the value of an option is, and what the argument of a command.
OPTIONS = {
    "-n": "namespaces",
    "--namespace": "namespaces",
    "--context": "contexts",
    "--pool": "pools",
    "--tts": "engines",
    "-o": "outputs",
    "--output": "outputs",
    "--kubeconfig": "files",
    "--save": "files",
}
ARGUMENTS = {"start": "avatars", "stop": "instances", "list": "instances", "logs": "instances", "pool": "pools"}
ARGUMENTS |= {"talk": "instances", "completion": "shells"}
# Commands that take one word after another.
REPEATED = ("stop",)


def complete(app: typer.Typer, words: Sequence[str], look: Look) -> tuple[list[Candidate], int]:
    """Candidates for the last of ``words``, and whether file names are, too."""
    # By what any version of click or typer has: names, options, help.
    tree: Any = typer.main.get_command(app)
    *before, begun = words or [""]
    target = _target(before)
    command, given, value_of = _read(tree, before)
    if command is None and value_of == "":
        found = [Candidate(name, each.get_short_help_str(80)) for name, each in tree.commands.items()]
        return _starting(found, begun), NO_FILES
    if value_of:
        kind = OPTIONS.get(value_of, "")
        if kind == "files":
            return [], FILES
        return _starting(_of(kind, target, look), begun), NO_FILES
    if begun.startswith("-"):
        options = [
            Candidate(each, (option.help or "").partition("\n")[0])
            for option in command.params
            for each in option.opts
            if each.startswith("--")
        ]
        return _starting(options, begun), NO_FILES
    kind = ARGUMENTS.get(command.name, "")
    if given and command.name not in REPEATED:
        return [], NO_FILES
    return _starting(_of(kind, target, look), begun), NO_FILES


def _of(kind: str, target: Target, look: Look) -> list[Candidate]:
    if kind in FIXED:
        return [Candidate(word) for word in FIXED[kind]]
    return look(kind, target) if kind else []


def _read(tree: Any, words: Sequence[str]) -> tuple[Any, list[str], str]:
    """The command that is named, its arguments so far, and the option whose value comes next."""
    command: Any = None
    given: list[str] = []
    value_of = ""
    for word in words:
        if value_of:
            value_of = ""
        elif word.startswith("-"):
            option = _option(command, word)
            takes = option is not None and not option.is_flag if command is not None else word in OPTIONS
            value_of = word if takes and "=" not in word else ""
        elif command is None:
            command = tree.commands.get(word)
            if command is None:
                return tree, ["?"], ""
        else:
            given.append(word)
    return command, given, value_of


def _option(command: Any, name: str) -> Any:
    return next((p for p in getattr(command, "params", ()) if name in p.opts), None)


def _target(words: Sequence[str]) -> Target:
    values = {"namespace": "", "context": "", "kubeconfig": ""}
    names = {"-n": "namespace", "--namespace": "namespace", "--context": "context", "--kubeconfig": "kubeconfig"}
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            values[names[name]] = value if equals else (words[index + 1] if index + 1 < len(words) else "")
    return Target(**values)


def _starting(found: Sequence[Candidate], begun: str) -> list[Candidate]:
    return sorted({c.word: c for c in found if c.word.startswith(begun)}.values())


# ---- what the cluster has ------------------------------------------------------------


def look(kind: str, target: Target) -> list[Candidate]:
    """Words of a kind; none where the cluster does not tell them soon."""
    try:
        if kind == "contexts":
            named = [Path(target.kubeconfig)] if target.kubeconfig else kubeconfig.usual()
            return [Candidate(name) for name in kubeconfig.contexts(named)]
        return asyncio.run(_ask(kind, target))
    except (ApiError, CredentialsError, TimeoutError, OSError):
        return []


async def _ask(kind: str, target: Target) -> list[Candidate]:
    async with asyncio.timeout(LOOK_SECONDS), Link.open(target) as link:
        if kind == "namespaces":
            return await _names(link, Resource("", "v1", "namespaces"), "")
        if kind == "pools":
            return await _names(link, POOLS, link.namespace)
        if kind == "engines":
            return await _names(link, ENGINES, link.namespace)
        if kind == "avatars":
            # A name of several words is hard to complete: its object has a simple one, which means the same.
            names = [(a.spec.avatar_name, a.metadata.name) for a in await link.avatars()]
            return [Candidate(name if _simple(name) else other, "" if _simple(name) else name) for name, other in names]
        found = []
        for item in await link.instances():
            found.append(Candidate(item.metadata.name, f"{item.spec.avatar_name}: {state(item)}"))
            if _simple(item.spec.avatar_name):
                found.append(Candidate(item.spec.avatar_name, "avatar"))
        return found


async def _names(link: Link, resource: Resource, namespace: str) -> list[Candidate]:
    items, _ = await link.client.list_pages(resource, namespace)
    return [Candidate(str(item["metadata"]["name"])) for item in items]


def _simple(name: str) -> bool:
    return not any(c.isspace() or c in "\"'\\$`" for c in name)


# ---- shells --------------------------------------------------------------------------

_BASH = """# Completion of `kubectl avatar` for bash. Load it now and in each new shell:
#     source <(kubectl avatar completion bash)
# `kubectl avatar <TAB>` is completed by kubectl itself (kubectl completion bash), which asks the program
# kubectl_complete-avatar; it was installed beside kubectl-avatar and must be on the PATH as that is.
_kubectl_avatar() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case "$line" in :*) ;; *) COMPREPLY+=("$(printf '%q' "${line%%$'\\t'*}")") ;; esac
    done < <(kubectl_complete-avatar "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _kubectl_avatar kubectl-avatar
"""

_ZSH = """#compdef kubectl-avatar
# Completion of `kubectl avatar` for zsh. Load it now and in each new shell:
#     source <(kubectl avatar completion zsh)
# `kubectl avatar <TAB>` is completed by kubectl itself (kubectl completion zsh), which asks the program
# kubectl_complete-avatar; it was installed beside kubectl-avatar and must be on the PATH as that is.
_kubectl_avatar() {
    local line
    local -a found
    while IFS= read -r line; do
        [[ "$line" == :* ]] || found+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}")
    done < <(kubectl_complete-avatar "${(@)words[2,CURRENT]}" 2>/dev/null)
    _describe 'kubectl-avatar' found || _files
}
compdef _kubectl_avatar kubectl-avatar
"""

_FISH = """# Completion of `kubectl avatar` for fish. Load it now and in each new shell:
#     kubectl avatar completion fish | source
# `kubectl avatar <TAB>` is completed by kubectl itself (kubectl completion fish), which asks the program
# kubectl_complete-avatar; it was installed beside kubectl-avatar and must be on the PATH as that is.
function __kubectl_avatar
    set -l words (commandline -opc) (commandline -ct)
    kubectl_complete-avatar $words[2..-1] 2>/dev/null | string match -v ':*'
end
complete -c kubectl-avatar -f -a '(__kubectl_avatar)'
"""


def script(shell: str) -> str:
    """What a shell must source."""
    return {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[shell]
