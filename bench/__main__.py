"""Every figure that this project claims, measured in one run beside what it is compared to.

    make bench          # everything: an hour, on a machine that does nothing else
    make bench-quick    # small sizes: ten minutes; judges ratios only

    python -m bench [--quick] [--kubeconfig FILE] [--add FILE ...] [--out docs/figures.json] [--check docs/figures.json]

Clusters for it are brought up and taken down. --kubeconfig names a cluster with a real kubelet, the images and the
chart in it: the row that needs one is left out without it. --add takes the report of a bench that was run alone
(`python -m bench.soak --out FILE`) instead of running it; those that only say something in an hour of their own (soak)
or beside others (shards) are in the table only so. --out keeps the results and writes a Markdown table beside
them; --check holds the ratios of this run against those kept, and exits with 1 where one is worse by more than a
third, which is more than the noise of one machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

import uvloop

from bench import cold_start, fleet, joins
from bench.figures import Json, where
from bench.plots import draw
from bench.table import RATIOS, markdown, value
from tests.support.cluster import OwnCluster
from tests.support.operator import Operator

SIZES = [100, 1000, 5000, 10000]
QUICK_SIZES = [100, 300]
WORSE = 1.33


async def on_kwok(quick: bool) -> dict[str, Json]:
    """Cold start and joins, on a cluster of their own with idle nodes."""
    with OwnCluster("bench").up() as own, tempfile.TemporaryDirectory() as folder:
        kubeconfig = f"--kubeconfig={own.kubeconfig}"
        operator = Operator(own.kubeconfig, Path(folder) / "operator.log", (), ("--log-level=warning",))
        await operator.start()
        try:
            runs = "10" if quick else "40"
            cold = await step(
                "cold start", cold_start.measure(cold_start.options([kubeconfig, "--fake", "--runs", runs]))
            )
        finally:
            operator.stop()
        seconds = ["--seconds=2", "--rounds=1"] if quick else []
        joined = await step("joins", joins.measure(joins.options([kubeconfig, "--instances=60", *seconds])))
    return {"cold_start": cold, "joins": joined}


async def on_kubelet(kubeconfig: str) -> dict[str, Json]:
    """Cold start on a real kubelet."""
    given = cold_start.options([f"--kubeconfig={kubeconfig}", "--runs", "20"])
    return {"cold_start_kubelet": await step("cold start on a real kubelet", cold_start.measure(given))}


async def step(what: str, work: Awaitable[Json]) -> Json:
    """One measurement, told."""
    began = time.monotonic()
    print(f"{what} …", file=sys.stderr, flush=True)
    result = await work
    print(f"{what}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return result


async def everything(quick: bool, kubeconfig: str, reports: Json) -> Json:
    """All results, by bench: what ``reports`` has is not run."""
    results: Json = {**where(), "quick": quick, **reports}
    if not {"cold_start", "joins"} <= results.keys():
        results |= await on_kwok(quick)
    if kubeconfig:
        results |= await on_kubelet(kubeconfig)
    if "fleet" not in results:
        results["fleet"] = await fleet.campaign(QUICK_SIZES if quick else SIZES)
    return results


def added(files: list[Path]) -> Json:
    """Reports by bench; several of `fleet` are one, with the sizes of all."""
    found: Json = {}
    for file in files:
        report = json.loads(file.read_text())
        name = "cold_start_kubelet" if report.get("node") == "kubelet" else str(report["bench"])
        if name == "fleet":
            sizes = [{"commit": report["commit"], **size} for size in report["sizes"]]
            report["sizes"] = sizes + found.get(name, {"sizes": []})["sizes"]
        found[name] = report
    if "fleet" in found:
        found["fleet"]["sizes"].sort(key=lambda size: size["instances"])
    if "soak" in found:
        # Two lines a minute are for those who look into it, not to be kept.
        found["soak"].pop("samples", None)
    return found


def worse(now: Json, kept: Json) -> list[str]:
    """The ratios of ``now`` that are clearly worse than those of ``kept``; those that only one has are left out."""
    found = []
    for ratio in RATIOS:
        this, that = value(now, ratio.place), value(kept, ratio.place)
        if this is None or that is None:
            continue
        if this > that * WORSE if ratio.low_is_good else this * WORSE < that:
            found.append(f"{ratio.what}: {this} now, {that} at {kept['commit']}")
    return found


def main() -> int:
    """Measure, keep, compare; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kubeconfig", default="")
    parser.add_argument("--add", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", type=Path)
    given = parser.parse_args()
    results = uvloop.run(everything(given.quick, given.kubeconfig, added(given.add)))
    print(markdown(results))
    if given.out:
        given.out.write_text(json.dumps(results, indent=2) + "\n")
        pictures = draw(results["fleet"]["sizes"], given.out.parent / "images")
        given.out.with_suffix(".md").write_text(markdown(results, pictures))
    found = worse(results, json.loads(given.check.read_text())) if given.check else []
    for line in found:
        print(f"worse: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
