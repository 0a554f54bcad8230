"""The commands of `kubectl avatar` and their options; what they do stands in a module of each."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from avatar_operator import __version__

from .link import Target, perform
from .options import Context, Everywhere, Format, Kubeconfig, Namespace, Output

PROGRAM = "kubectl avatar"

app = typer.Typer(
    name=PROGRAM,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Talking avatars from the command line: start, watch, talk to and stop them.",
)

Avatar = Annotated[str, typer.Argument(metavar="AVATAR|NAME", help="An avatar's name, or that of its instance.")]


class Shell(StrEnum):
    """Shells with completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def start(
    avatar: Annotated[str, typer.Argument(metavar="AVATAR", help="The avatar's name, or that of its Avatar object.")],
    pool: Annotated[str, typer.Option(metavar="NAME", help="AvatarPool to run it in.")] = "default",
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the AvatarInstance; default: one each avatar.")
    ] = "",
    tts: Annotated[str, typer.Option(metavar="ENGINE", help="Speech engine instead of the avatar's.")] = "",
    voice: Annotated[str, typer.Option(metavar="VOICE", help="Voice instead of the avatar's.")] = "",
    exclusive: Annotated[bool, typer.Option("--exclusive", help="A pod of its own, shared with nobody.")] = False,
    max_sessions: Annotated[int | None, typer.Option(min=1, metavar="N", help="Most viewers at a time.")] = None,
    idle_timeout: Annotated[
        int | None, typer.Option(min=0, metavar="SECONDS", help="Collected after so long without use; 0 = never.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it serves.")] = True,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long to wait.")] = 60,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Start an avatar, or join it where it runs; ends with its URL."""
    from . import start as command

    spec: dict[str, Any] = {}
    if tts or voice:
        spec["tts"] = {key: value for key, value in (("engine", tts), ("voice", voice)) if value}
    if max_sessions is not None:
        spec["maxSessions"] = max_sessions
    if idle_timeout is not None:
        spec["idle"] = {"timeoutSeconds": idle_timeout}
    ask = command.Ask(avatar, pool, name, exclusive, spec, wait, timeout)
    perform(command.run(Target(namespace, context, kubeconfig), ask))


@app.command()
def stop(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="AVATAR|NAME", help="Avatars, or names of instances.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every instance of the namespace.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if somebody is connected.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long to wait for the end.")] = 60,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Stop avatars that nobody uses, and wait until their pods are gone and their ports free."""
    from . import stop as command

    target = Target(namespace, context, kubeconfig)
    perform(command.run(target, names or (), everything=everything, force=force, yes=yes, timeout=timeout))


@app.command("list")
def list_(
    name: Annotated[str, typer.Argument(metavar="[AVATAR|NAME]", help="Only this avatar or instance.")] = "",
    everywhere: Everywhere = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with what changes.")] = False,
    output: Format = Output.TABLE,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """List the instances: phase, port, GPU, who is connected, when they are collected."""
    from . import listing

    target = Target(namespace, context, kubeconfig)
    perform(listing.show(target, name, output, everywhere=everywhere, watch=watch))


@app.command()
def top(
    everywhere: Everywhere = False,
    once: Annotated[bool, typer.Option("--once", help="Print one screen and end.")] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """A live screen: pools and their ports, GPUs and their memory, speech engines, queue, instances."""
    from . import top as command

    perform(command.run(Target(namespace, context, kubeconfig), everywhere=everywhere, once=once))


@app.command()
def logs(
    avatar: Avatar,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the container that ended before.")] = False,
    tail: Annotated[int, typer.Option(metavar="N", help="Only the last lines; -1 = all.")] = -1,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Show what the avatar's runtime says."""
    from . import logs as command

    perform(command.run(Target(namespace, context, kubeconfig), avatar, follow=follow, previous=previous, tail=tail))


@app.command()
def talk(
    avatar: Avatar,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What it shall say.")],
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Clip: .mp4, .mkv, .webm, .wav, .ogg, .flac; default: AVATAR-TIME.mp4."),
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Start it if it does not run.")] = False,
    pool: Annotated[str, typer.Option(metavar="NAME", help="AvatarPool, with --start.")] = "default",
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="For the connection.")] = 20,
    limit: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="For the speech.")] = 60,
    stun: Annotated[str, typer.Option(metavar="URI", help="STUN server; none by default.")] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Have an avatar say a text over WebRTC, and save what came."""
    from . import talk as command
    from .start import Ask

    words = command.Words(text, save, timeout, limit, stun)
    perform(command.run(Target(namespace, context, kubeconfig), avatar, words, Ask(avatar, pool) if start else None))


@app.command()
def pool(
    name: Annotated[str, typer.Argument(metavar="[POOL]", help="One pool, in detail.")] = "",
    everywhere: Everywhere = False,
    output: Format = Output.TABLE,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Show pools: ports used and free, instances by phase, queue, GPUs, conditions."""
    from . import pools

    perform(pools.show(Target(namespace, context, kubeconfig), name, output, everywhere=everywhere))


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print what the shell must source to complete avatars' names, options and commands."""
    from .completion import script

    typer.echo(script(shell.value), nl=False)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


# Options that people write between `avatar` and the command, too.
_VALUED = ("-n", "--namespace", "--context", "--kubeconfig")


def ordered(arguments: Sequence[str]) -> list[str]:
    """Arguments with the options that stand before the command after it: ``-n x list`` is ``list -n x``."""
    rest, front = list(arguments), []
    while rest and (rest[0] in _VALUED or rest[0].partition("=")[0] in _VALUED):
        taken = 1 if "=" in rest[0] else 2
        front += rest[:taken]
        rest = rest[taken:]
    return [rest[0], *front, *rest[1:]] if rest else front
