"""The demo's steps. Each is what a user would type; the times are printed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from demo import speech
from demo.shell import DemoError, Shell, console, say, step, wait_for
from demo.talk import talk

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "out" / "demo"
NAMESPACE = "avatars"
INSTANCE = "avatarinstance-ada"
RUNTIME = "app.kubernetes.io/component=avatar-runtime"
IDLE_SECONDS = 6
SENTENCE = "Hello! I am Ada, a talking avatar. I live in a pod on Kubernetes, and I am glad that you came."


def main() -> int:
    """Run the demo; the exit status of the process."""
    OUT.mkdir(parents=True, exist_ok=True)
    try:
        shell = prepare()
        install(shell)
        url = start(shell)
        asyncio.run(speak_and_share(shell, url))
        speech.from_zero(shell, NAMESPACE, IDLE_SECONDS, OUT / speech.INSTANCE)
        collect(shell)
        speech.stopped_last(shell, NAMESPACE)
    except (DemoError, subprocess.SubprocessError) as error:
        console.print(f"\n[bold red]The demo stopped:[/] {error}", markup=True)
        console.print("python3 -m devcluster status, and python3 -m devcluster logs, say more about the cluster")
        return 1
    finish()
    return 0


def prepare() -> Shell:
    """Cluster and images, side by side: the one needs the CPUs, the other network and disk."""
    with step("a real Kubernetes node on this machine, and three images"):
        log = OUT / "images.log"
        with log.open("w") as sink, (OUT / "images.paths").open("w+") as paths:
            images = subprocess.Popen([ROOT / "images" / "build"], stdout=paths, stderr=sink, cwd=ROOT)
            try:
                _devcluster("up")
                say(f"waiting for the images (progress: {log.relative_to(ROOT)})")
                if images.wait(timeout=1800):
                    raise DemoError(f"images/build failed:\n{log.read_text()[-2000:]}")
            finally:
                if images.poll() is None:
                    images.terminate()
            paths.seek(0)
            tars = paths.read().split()
        _devcluster("load-image", *tars)
    return Shell(Path(_ask("binaries")), Path(_ask("kubeconfig")))


def install(shell: Shell) -> None:
    """The chart, as a user installs it."""
    with step("install the operator with helm"):
        tags = ("--set", "image.tag=dev", "--set", "runtime.image.tag=dev", "--set", "tts.image.tag=dev")
        shell.run("kubectl", "apply", "--server-side", "-f", "crds/", show=False)
        shell.run(
            *("helm", "upgrade", "--install", "avatar-operator", "charts/avatar-operator"),
            *("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "120s", *tags, *speech.VALUES),
            show=False,
        )
        say("helm upgrade --install avatar-operator charts/avatar-operator -n avatars --create-namespace --wait")
        _forget_earlier_run(shell)
        # The tag of a development build stays while its content changes.
        shell.run("kubectl", "-n", NAMESPACE, "rollout", "status", "deployment", "--timeout=120s", show=False)
        shell.run("kubectl", "-n", NAMESPACE, "get", "deployments,avp,av,tts")


def start(shell: Shell) -> str:
    """Apply an instance and wait until it serves; its URL."""
    with step("kubectl apply an AvatarInstance"):
        shell.run("kubectl", "-n", NAMESPACE, "apply", "-f", f"manifests/samples/{INSTANCE}.yaml")
        status = wait_running(shell, _name(INSTANCE))
        shell.run("kubectl", "-n", NAMESPACE, "get", "avi,pods,services", "-l", "!app.kubernetes.io/instance")
        say(f"Ready on port [bold]{status['port']}[/], at {status['webrtcUrl']}")
    return str(status["webrtcUrl"])


async def speak_and_share(shell: Shell, url: str) -> None:
    """A user talks; a backend counts; a second user shares the pod; both leave."""
    with step("a WebRTC client says a sentence and receives the speaking avatar"):
        say(f"[italic]“{SENTENCE}”[/]")
        for line in await talk(url, SENTENCE, OUT):
            say(line)
    name, second = _name(INSTANCE), _name(f"{INSTANCE}-second-user")
    with step("a backend counts the connection in the resource's status"):
        _count(shell, name, 1)
        wait_for("the idle clock to stop", lambda: "idleDeadline" not in _status(shell, name), 10)
        shell.run("kubectl", "-n", NAMESPACE, "get", "avi")
    with step("a second user, another id, the same avatar: shares the pod"):
        shell.run("kubectl", "-n", NAMESPACE, "apply", "-f", f"manifests/samples/{INSTANCE}-second-user.yaml")
        shared = wait_for("the second instance to be Shared", lambda: _in_phase(shell, second, "Shared"), 30)
        shell.run("kubectl", "-n", NAMESPACE, "get", "avi,pods", "-l", "!app.kubernetes.io/instance")
        if shared["webrtcUrl"] != url:
            raise DemoError(f"the second user got {shared['webrtcUrl']}, not {url}")
    with step("both users leave"):
        for each in (name, second):
            idle = json.dumps({"spec": {"idle": {"timeoutSeconds": IDLE_SECONDS}}})
            shell.run("kubectl", "-n", NAMESPACE, "patch", "avi", each, "--type=merge", "-p", idle, show=False)
        say(f"(idle.timeoutSeconds set to {IDLE_SECONDS}, so that nobody has to wait for half an hour)")
        _count(shell, name, 0)
        wait_for("the idle clock to start", lambda: _status(shell, name).get("idleDeadline"), 10)
        shell.run("kubectl", "-n", NAMESPACE, "get", "avi")


def collect(shell: Shell) -> None:
    """Nobody uses it: instances, pod and Service go."""
    with step(f"idle for {IDLE_SECONDS} s: collected"):
        for what in (("avi",), ("pods", "-l", RUNTIME), ("services", "-l", RUNTIME)):
            wait_for(f"the {what[0]} to be gone", partial(_none_left, shell, *what), IDLE_SECONDS + 60)
        shell.run(
            *("kubectl", "-n", NAMESPACE, "get", "events", "--field-selector", "involvedObject.kind=AvatarInstance"),
            *(
                "--sort-by=.metadata.creationTimestamp",
                "-o",
                "custom-columns=REASON:.reason,OBJECT:.involvedObject.name,MESSAGE:.message",
            ),
        )


def finish() -> None:
    """Where the results are, and what to try next."""
    kubeconfig, bin_dir = _ask("kubeconfig"), _ask("binaries")
    console.print(f"""
[bold green]Done.[/] Clip: {(OUT / "clip.mp4").relative_to(ROOT)}   still: {(OUT / "still.png").relative_to(ROOT)}

The cluster is up. Try next:
  export KUBECONFIG={kubeconfig} PATH={bin_dir}:$PATH
  kubectl -n {NAMESPACE} apply -f manifests/samples/{INSTANCE}.yaml
  kubectl -n {NAMESPACE} get avi -w
  kubectl -n {NAMESPACE} describe avi {_name(INSTANCE)}
  make clean        ends the cluster and everything that it left""")


def wait_running(shell: Shell, name: str) -> dict[str, Any]:
    """The status of an instance once it is Running; its message when it failed."""
    return dict(
        wait_for(
            f"AvatarInstance {name} to run",
            lambda: _in_phase(shell, name, "Running"),
            90,
            lambda: f"its status: {_status(shell, name)}",
        )
    )


def _forget_earlier_run(shell: Shell) -> None:
    shell.run(
        *("kubectl", "-n", NAMESPACE, "delete", "avi", "--all", "--wait=true", "--timeout=60s"),
        show=False,
    )
    wait_for(
        "the pods of an earlier run to end",
        lambda: (
            not shell.json(
                "kubectl", "-n", NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/component=avatar-runtime"
            )["items"]
        ),
        90,
    )
    shell.run("kubectl", "-n", NAMESPACE, "delete", "events", "--all", show=False)


def _none_left(shell: Shell, *what: str) -> bool:
    return not shell.json("kubectl", "-n", NAMESPACE, "get", *what)["items"]


def _count(shell: Shell, name: str, connections: int) -> None:
    patch = json.dumps({"status": {"connections": connections}})
    shell.run("kubectl", "-n", NAMESPACE, "patch", "avi", name, "--subresource=status", "--type=merge", "-p", patch)


def _status(shell: Shell, name: str) -> dict[str, Any]:
    found = shell.json("kubectl", "-n", NAMESPACE, "get", "avi", name)
    return dict(found.get("status", {})) if found else {}


def _in_phase(shell: Shell, name: str, phase: str) -> dict[str, Any] | None:
    status = _status(shell, name)
    return status if status.get("phase") == phase and status.get("webrtcUrl") else None


def _name(sample: str) -> str:
    import yaml

    return str(yaml.safe_load((ROOT / "manifests" / "samples" / f"{sample}.yaml").read_text())["metadata"]["name"])


def _devcluster(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", "devcluster", *command], cwd=ROOT, check=False)
    if done.returncode:
        raise DemoError(f"python3 -m devcluster {' '.join(command)} failed (its message is above)")


def _ask(question: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "devcluster", question], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
