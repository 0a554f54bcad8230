"""The command line."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from devcluster import provider as providers
from devcluster.binaries import ensure_binaries
from devcluster.errors import DevclusterError
from devcluster.kube import Kubectl, fake_nodes
from devcluster.layout import Layout, clusters
from devcluster.process import MARK, tail
from devcluster.progress import say, step, wait_for


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except DevclusterError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.remedy:
            print(f"try: {error.remedy}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted; run the command again, or `down`", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m devcluster", description=(__doc__ or "").strip())
    parser.description = "A real Kubernetes for development, the demo and the tests."
    parser.add_argument("--name", default="avatar", help="the cluster's name, at most 10 characters (%(default)s)")
    parser.add_argument(
        "--provider",
        choices=providers.PROVIDERS,
        default=os.environ.get("DEVCLUSTER_PROVIDER") or None,
        help="default: $DEVCLUSTER_PROVIDER, else the best that works here",
    )
    parser.add_argument("--kubeconfig", help="for --provider existing; default: $KUBECONFIG")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    command("up", _up, "start the cluster, repair it, or find it running")
    command("down", _down, "remove the cluster and everything of it")
    command("status", _status, "say what runs; exit 1 when the cluster is not healthy")
    command("kubeconfig", _kubeconfig, "print the path of the kubeconfig")
    command(
        "binaries",
        _binaries,
        "print the folder of kubectl, helm and the cluster's programs; build them",
    )
    load = command("load-image", _load_image, "load docker-archive files into the node")
    load.add_argument("archive", nargs="+", type=Path)
    logs = command("logs", _logs, "show the components' logs")
    logs.add_argument("component", nargs="?", help="default: the last lines of each")
    logs.add_argument("-f", "--follow", action="store_true")
    net = command("exec-net", _exec_net, "run a command of this machine in the node's network")
    net.add_argument("rest", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    part = command("component", _component, "play a fault: end, freeze or start one component")
    part.add_argument("action", choices=tuple(_ACTIONS))
    part.add_argument("component", help="as `status` names it")
    fake = command("fake-nodes", _fake_nodes, "make sure that there are N nodes played by kwok")
    fake.add_argument("count", type=int)
    fake.add_argument("--gpus", type=int, default=0, help="nvidia.com/gpu of each (default 0)")
    return parser


def _provider(options: argparse.Namespace) -> providers.Provider:
    return providers.choose(Layout(options.name), options.provider, options.kubeconfig)


def _running(options: argparse.Namespace) -> providers.Provider:
    """Return the provider of a cluster that must exist."""
    if not Layout(options.name).facts() and options.provider != "existing":
        known = ", ".join(clusters()) or "none"
        raise DevclusterError(
            f"There is no cluster {options.name!r} (there is: {known}).", "Start it: python3 -m devcluster up"
        )
    return _provider(options)


def _up(options: argparse.Namespace) -> int:
    layout = Layout(options.name)
    with layout.lock():
        chosen = _provider(options)
        kind = type(chosen).__name__
        with step(f"cluster {layout.name!r} ({kind})"):
            chosen.up()
    programs = chosen.programs()
    print(f"export KUBECONFIG={chosen.kubeconfig()}")
    print(f"kubectl: {programs / 'kubectl' if programs else 'kubectl (of your path)'}")
    if programs:
        print(f'For kubectl and helm on your path: export PATH="{programs}:$PATH"')
    return 0


def _down(options: argparse.Namespace) -> int:
    layout = Layout(options.name)
    with layout.lock():
        left = _provider(options).down()
    if left:
        print(f"error: {len(left)} thing(s) of cluster {layout.name!r} are left, named above", file=sys.stderr)
        print("try: run `down` again; what stays must be removed by hand", file=sys.stderr)
        return 1
    say(f"cluster {layout.name!r} is gone, nothing is left of it")
    return 0


def _status(options: argparse.Namespace) -> int:
    chosen = _running(options)
    for part, state in chosen.status().items():
        print(f"{part:24} {state}")
    print(f"{'kubeconfig':24} {chosen.kubeconfig()}")
    print(f"{'programs':24} {chosen.programs() or 'of your path'}")
    return 0 if chosen.healthy() else 1


def _kubeconfig(options: argparse.Namespace) -> int:
    print(_running(options).kubeconfig())
    return 0


def _binaries(options: argparse.Namespace) -> int:
    wanted = Layout(options.name).facts().get("provider") or options.provider
    there = shutil.which("kubectl")
    # kind and foreign clusters are used with the programs of the path: nothing has to be built for them.
    print(Path(there).parent if wanted in ("kind", "existing") and there else ensure_binaries())
    return 0


def _load_image(options: argparse.Namespace) -> int:
    with Layout(options.name).lock():
        _running(options).load_images(options.archive)
    return 0


def _logs(options: argparse.Namespace) -> int:
    folder = Layout(options.name).logs
    known = sorted(path.stem for path in folder.glob("*.log"))
    if not known:
        raise DevclusterError(f"Cluster {options.name!r} has no logs.", "Start it: python3 -m devcluster up")
    if options.component and options.component not in known:
        raise DevclusterError(f"There is no component {options.component!r}.", f"There are: {', '.join(known)}.")
    chosen = [folder / f"{name}.log" for name in ([options.component] if options.component else known)]
    if options.follow:
        return subprocess.run(["tail", "-n", "50", "-F", *map(str, chosen)], check=False).returncode
    for path in chosen:
        if len(chosen) > 1:
            print(f"== {path}")
        print(tail(path, 15 if len(chosen) > 1 else 1000))
    return 0


def _exec_net(options: argparse.Namespace) -> int:
    command = options.rest[1:] if options.rest[:1] == ["--"] else options.rest
    if not command:
        raise DevclusterError("exec-net needs a command.", "exec-net -- ss -tln")
    entered = _running(options).enter(command)
    sys.stdout.flush()
    try:
        os.execvpe(entered[0], entered, {**os.environ, MARK: str(Layout(options.name).state)})
    except OSError as error:
        raise DevclusterError(f"{entered[0]} cannot be run: {error}") from error


_ACTIONS = {
    "start": lambda daemon: daemon.start(),
    "stop": lambda daemon: daemon.stop(grace=30),
    "kill": lambda daemon: daemon.stop(grace=0),
    "freeze": lambda daemon: daemon.signal(signal.SIGSTOP),
    "thaw": lambda daemon: daemon.signal(signal.SIGCONT),
}


def _component(options: argparse.Namespace) -> int:
    known = _running(options).daemons()
    if options.component not in known:
        there = f"There are: {', '.join(known)}." if known else "This provider's components are out of reach."
        raise DevclusterError(f"There is no component {options.component!r}.", there)
    _ACTIONS[options.action](known[options.component])
    return 0


def _fake_nodes(options: argparse.Namespace) -> int:
    chosen = _running(options)
    if not 0 < options.count <= 5000:
        raise DevclusterError("The count of fake nodes must be 1 to 5000.")
    addresses = [chosen.fake_node_address(index) for index in range(options.count)]
    kubectl = Kubectl(chosen.programs(), chosen.kubeconfig())
    kubectl.run("apply", "-f", "-", stdin=fake_nodes(addresses, options.gpus), timeout=300)
    last = f"fake-{options.count - 1}"
    wait_for(f"fake nodes up to {last} getting Ready", lambda: kubectl.node_ready(last), timeout=60)
    print(f"{options.count} fake nodes are Ready")
    return 0
