"""The demo's speech engine: from zero, heard, and stopped after the avatar that needed it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from demo.shell import DemoError, Shell, say, step, wait_for
from demo.talk import talk

ENGINE = "cosyvoice"
SAMPLE = "avatarinstance-bruno-cosyvoice"
INSTANCE = "bruno"
SENTENCE = "I am Bruno. My voice comes from an engine that did not run a moment ago."
# What the demo asks the chart for, so that nobody has to wait for five minutes.
IDLE_SECONDS = 4
VALUES = ("--set", f"tts.engines.{ENGINE}.idleTimeoutSeconds={IDLE_SECONDS}")


def from_zero(shell: Shell, namespace: str, idle_seconds: int, out: Path) -> None:
    """An avatar whose engine does not run: both start side by side, and it speaks through that."""
    with step("an avatar with tts: CosyVoice; no engine of that name runs"):
        wait_for("the engine of an earlier run to stop", lambda: _engine(shell, namespace) == "Stopped", 30)
        shell.run("kubectl", "-n", namespace, "get", "tts")
        shell.run("kubectl", "-n", namespace, "apply", "-f", f"manifests/samples/{SAMPLE}.yaml")
        url = str(wait_for("bruno and his engine", lambda: _speaks(shell, namespace), 90))
        shell.run("kubectl", "-n", namespace, "get", "avi,pods", "-l", "!app.kubernetes.io/instance")
        shell.run("kubectl", "-n", namespace, "get", "tts")
        say(f"[italic]“{SENTENCE}”[/]")
        for line in asyncio.run(talk(url, SENTENCE, out)):
            say(line)
        idle = f'{{"spec":{{"idle":{{"timeoutSeconds":{idle_seconds}}}}}}}'
        shell.run("kubectl", "-n", namespace, "patch", "avi", INSTANCE, "--type=merge", "-p", idle, show=False)


def stopped_last(shell: Shell, namespace: str) -> None:
    """The avatar is gone; now the engine has nobody left, and its own clock runs out."""
    with step(f"nobody needs the engine for {IDLE_SECONDS} s: stopped"):
        wait_for("the engine to stop", lambda: _engine(shell, namespace) == "Stopped", IDLE_SECONDS + 30)
        shell.run("kubectl", "-n", namespace, "get", "tts")
        who = ("--field-selector", f"involvedObject.kind=TTSEngine,involvedObject.name={ENGINE}")
        order = ("--sort-by=.metadata.creationTimestamp",)
        columns = "custom-columns=TIME:.lastTimestamp,REASON:.reason,OBJECT:.involvedObject.name,MESSAGE:.message"
        shell.run("kubectl", "-n", namespace, "get", "events", *who, *order, "-o", columns)
        _check_order(shell, namespace)


def _check_order(shell: Shell, namespace: str) -> None:
    ends: dict[str, str] = {}
    for event in shell.json("kubectl", "-n", namespace, "get", "events")["items"]:
        if event["reason"] == "IdleCollected":
            ends[event["involvedObject"]["name"]] = event["lastTimestamp"]
    if not ends.get(INSTANCE, "~") <= ends.get(ENGINE, ""):
        raise DemoError(f"the engine was stopped before the avatar that speaks through it: {ends}")


def _engine(shell: Shell, namespace: str) -> str:
    found = shell.json("kubectl", "-n", namespace, "get", "tts", ENGINE)
    return str(found.get("status", {}).get("phase", "")) if found else ""


def _speaks(shell: Shell, namespace: str) -> str:
    """The instance's URL once it runs and its engine speaks."""
    found = shell.json("kubectl", "-n", namespace, "get", "avi", INSTANCE)
    status: dict[str, Any] = found.get("status", {}) if found else {}
    ready = {c["type"]: c["status"] for c in status.get("conditions", [])}
    return str(status.get("webrtcUrl", "")) if ready.get("Ready") == ready.get("TTSReady") == "True" else ""
