"""What all measurements share: where they were taken, sums of seconds, what a process and the API server did."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from avatar_operator.kube import credentials

Json = dict[str, Any]
# Where a figure is in a report: names of fields, and places in lists.
Place = tuple[str | int, ...]

READS = ("GET", "LIST", "WATCH")
# Kept apart from what an instance costs: leases beat whatever happens, events are told once and forgotten.
APART = ("leases", "events")
_REQUEST = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Kind(NamedTuple):
    """One kind of request to the API server; ``resource`` includes the subresource."""

    verb: str
    resource: str
    code: str


def where() -> Json:
    """Commit, machine and its load."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "commit": done.stdout.strip(),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release().partition('-')[0]}",
        "load": round(os.getloadavg()[0], 1),
    }


def spread(seconds: Sequence[float]) -> Json:
    """Least, median, 99th of a hundred and largest, in milliseconds."""
    ms = sorted(s * 1000 for s in seconds)
    return {
        "n": len(ms),
        "min": round(ms[0], 1),
        "p50": round(statistics.median(ms), 1),
        "p99": round(ms[int(len(ms) * 0.99)], 1),
        "max": round(ms[-1], 1),
    }


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int, field: str = "VmRSS") -> float:
    """VmRSS or VmHWM of a process."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


async def asked(kubeconfig: Path) -> Counter[Kind]:
    """What the API server was asked so far."""
    found = credentials.find(str(kubeconfig))
    async with (
        credentials.open_session(found, "bench") as session,
        session.get(f"{found.server}/metrics", timeout=aiohttp.ClientTimeout(total=60)) as answer,
    ):
        return requests(await answer.text())


def requests(page: str) -> Counter[Kind]:
    """How often the API server was asked what, from its /metrics."""
    result: Counter[Kind] = Counter()
    for match in _REQUEST.finditer(page):
        of = dict(_LABEL.findall(match["labels"]))
        below = f"/{of['subresource']}" if of["subresource"] else ""
        result[Kind(of["verb"], f"{of['resource']}{below}", of["code"])] += int(float(match["count"]))
    return result


def writes(counted: Counter[Kind]) -> Counter[str]:
    """Of these, those that changed something, by verb and resource."""
    return _those(counted, lambda k: k.verb not in READS and k.resource not in APART and k.code.startswith("2"))


def reads(counted: Counter[Kind]) -> Counter[str]:
    """Of these, those that changed nothing, by verb and resource."""
    return _those(counted, lambda k: k.verb in READS)


def conflicts(counted: Counter[Kind]) -> Counter[str]:
    """Of these, those refused with 409, by verb and resource."""
    return _those(counted, lambda k: k.code == "409")


def _those(counted: Counter[Kind], wanted: Callable[[Kind], bool]) -> Counter[str]:
    result: Counter[str] = Counter()
    for kind, count in counted.items():
        if wanted(kind):
            result[f"{kind.verb} {kind.resource}"] += count
    return +result


def own_writes(page: str) -> float:
    """How often an operator has changed something so far, from its own /metrics; events and leases apart."""
    name = "avatar_operator_api_request_seconds"
    samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
    return sum(
        sample.value
        for sample in samples
        if sample.name == f"{name}_count"
        and sample.labels["verb"].upper() not in READS
        and sample.labels["resource"] not in APART
        and sample.labels["code"].startswith("2")
    )


def figure(report: object, place: Place) -> float | None:
    """A number in a report, by names of fields and places in lists; None where it was not measured."""
    found: Any = report
    for step in place:
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError):
            return None
    return float(found) if isinstance(found, (int, float)) else None
