"""Do an avatar and its speech engine start side by side? Cold starts on a real kubelet, each alone and both together.

    python -m bench.tts_start --kubeconfig … [--rounds 5]

Needs the chart installed in --namespace with its sample avatars, and nothing of it running. Figures are medians of
seconds from the request to the condition that says done: Ready of the instance, Serving of the engine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from typing import Any

ENGINE = "cosyvoice"
GROUP = "avatars.virtualtutor.io/v1alpha1"


class Cluster:
    """kubectl in one namespace."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self._command = ["kubectl", "--kubeconfig", kubeconfig, "-n", namespace]

    def run(self, *args: str, body: Any = None) -> str:
        text = json.dumps(body) if body is not None else None
        return subprocess.run([*self._command, *args], input=text, capture_output=True, text=True, check=True).stdout

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        body = {"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.run("create", "-f", "-", body=body)

    def is_true(self, kind: str, name: str, condition: str) -> bool:
        path = f'jsonpath={{.status.conditions[?(@.type=="{condition}")].status}}'
        return self.run("get", kind, name, "-o", path) == "True"

    def wait(self, *wanted: tuple[str, str, str]) -> float:
        """Seconds until all of these conditions are true."""
        began = time.monotonic()
        while not all(self.is_true(*one) for one in wanted):
            assert time.monotonic() - began < 120, f"after 120 s still not true: {wanted}"
            time.sleep(0.05)
        return time.monotonic() - began

    def nothing_runs(self) -> None:
        """Stop all, and wait until no pod of an avatar or an engine is left."""
        self.run("delete", "avi", "--all", "--wait=true")
        self.run("patch", "tts", ENGINE, "--type=merge", "-p", '{"spec":{"minReplicas":0,"idleTimeoutSeconds":1}}')
        for selector in ("app.kubernetes.io/component=avatar-runtime", f"avatars.virtualtutor.io/tts-engine={ENGINE}"):
            while self.run("get", "pods", "-l", selector, "-o", "name").strip():
                time.sleep(0.2)
        time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--namespace", default="avatars")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    cluster = Cluster(given.kubeconfig, given.namespace)
    figures: dict[str, list[float]] = {"avatar alone": [], "engine alone": [], "both": []}
    pool = json.loads(cluster.run("get", "avp", "default", "-o", "json"))["spec"]
    ports = {"ports": {"base": 8990, "count": 2}}
    quiet = {**pool, **ports, "maxInstances": 2, "tts": {"url": "http://nobody.invalid:5002"}}
    cluster.run(
        "apply",
        "-f",
        "-",
        body={"apiVersion": GROUP, "kind": "AvatarPool", "metadata": {"name": "quiet"}, "spec": quiet},
    )
    try:
        for _ in range(given.rounds):
            cluster.nothing_runs()
            cluster.apply("AvatarInstance", "bench", {"avatarName": "ada", "poolRef": "quiet"})
            figures["avatar alone"].append(cluster.wait(("avi", "bench", "Ready")))
            cluster.nothing_runs()
            cluster.run("patch", "tts", ENGINE, "--type=merge", "-p", '{"spec":{"minReplicas":1}}')
            figures["engine alone"].append(cluster.wait(("tts", ENGINE, "Serving")))
            cluster.nothing_runs()
            cluster.apply("AvatarInstance", "bench", {"avatarName": "ada", "tts": {"engine": ENGINE}})
            figures["both"].append(cluster.wait(("avi", "bench", "Ready"), ("avi", "bench", "TTSReady")))
            print(*(f"{name} {values[-1]:.2f} s" for name, values in figures.items()), sep="   ", flush=True)
        cluster.nothing_runs()
    finally:
        cluster.run("delete", "avp", "quiet", "--ignore-not-found")
    medians = {name: statistics.median(values) for name, values in figures.items()}
    slower = max(medians["avatar alone"], medians["engine alone"])
    print(*(f"{name}: {value:.2f} s" for name, value in medians.items()), sep="   ")
    print(f"both over the slower of the two: {medians['both'] / slower:.2f}")


if __name__ == "__main__":
    main()
