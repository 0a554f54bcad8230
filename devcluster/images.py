"""Container images without a registry: archives made here and archives loaded into a node."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.progress import say

PAUSE_IMAGE = "localhost/avatar-operator/pause:1"


def pack_program(program: Path, image: str, target: Path, arch: str) -> None:
    """Write a docker-archive at ``target``: ``image`` holds the static ``program`` alone."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo(program.name)
        entry.mode, entry.size = 0o755, program.stat().st_size
        with program.open("rb") as binary:
            tar.addfile(entry, binary)
    config = {
        "architecture": arch,
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65534:65534"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [image], "Layers": ["layer.tar"]}]
    files = {
        "layer.tar": layer.getvalue(),
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(target, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def load_once(archives: list[Path], state: Path, load: Callable[[Path], None]) -> None:
    """Call ``load`` for each archive that is not in the cluster yet (same path, size and time = the same)."""
    record = state / "images.json"
    known: dict[str, list[int]] = json.loads(record.read_text()) if record.exists() else {}
    for given in archives:
        archive = given.resolve()
        try:
            facts = archive.stat()
        except FileNotFoundError:
            raise DevclusterError(f"There is no image archive {archive}.") from None
        stamp = [facts.st_size, facts.st_mtime_ns]
        if known.get(str(archive)) == stamp:
            say(f"{archive.name} is loaded already")
            continue
        load(archive)
        known[str(archive)] = stamp
        record.write_text(json.dumps(known, indent=2) + "\n")
