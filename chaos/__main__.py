"""Many seeded runs, several at a time, in different namespaces of one cluster.

    python -m chaos --runs 500 --parallel 3 [--seed-base N] [--minutes M] [--out FILE]
    python -m chaos --seed 123            # the run of one seed again, with its plan
    python -m chaos --seed 123 --show     # its plan alone
    python -m chaos --cluster-faults      # the cluster's own components fail, too

Without --kubeconfig (or KUBECONFIG) the devcluster `chaos` is brought up and left up. Each run's result is a line of
JSON in --out; what helps to understand a run that failed is kept in a folder beside it. Exit status 1: a rule was
broken.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cluster import bring_up, is_own
from .operators import faketime
from .plan import Plan, draw
from .run import Verdict, run


@dataclass
class Campaign:
    """The runs of one call."""

    runs: int
    began: float = field(default_factory=time.monotonic)
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def failed(self) -> list[Verdict]:
        """Those in which a rule was broken."""
        return [v for v in self.verdicts if v.violations]

    def progress(self, verdict: Verdict) -> str:
        """A line about the run that ended just now."""
        minutes = (time.monotonic() - self.began) / 60
        state = "ok" if not verdict.violations else f"{len(verdict.violations)} VIOLATION(S)"
        return (
            f"{len(self.verdicts):4}/{self.runs}  seed {verdict.seed}: {state} in {verdict.seconds:.1f} s "
            f"(settled in {verdict.settled:.1f} s, {verdict.actions} actions, {verdict.faults} faults, "
            f"{verdict.writes} writes); {len(self.failed)} failed, {len(self.verdicts) / minutes:.1f} runs/min"
        )

    def summary(self) -> str:
        """What came out."""
        done = self.verdicts
        hours = (time.monotonic() - self.began) / 3600
        rests = sorted(v.settled for v in done) or [0.0]
        return (
            f"{len(done)} runs in {hours:.2f} h ({sum(v.seconds for v in done) / 3600:.2f} h of running): "
            f"{sum(v.actions for v in done)} actions, {sum(v.faults for v in done)} faults, "
            f"{sum(v.starts for v in done)} starts of operators, {sum(v.writes for v in done)} versions checked, "
            f"settled in {rests[len(rests) // 2]:.1f} s (median), {rests[-1]:.1f} s (worst); "
            f"{sum(len(v.violations) for v in done)} violations in {len(self.failed)} runs"
        )


def main() -> int:
    """Run; the exit status."""
    options = _options()
    if options.show:
        print(_plan(options))
        return 0
    kubeconfig = bring_up(options.kubeconfig or os.environ.get("KUBECONFIG", ""))
    if options.cluster_faults and not is_own(kubeconfig):
        print("--cluster-faults kills components: it is for the devcluster `chaos` alone", file=sys.stderr)
        return 2
    return asyncio.run(_campaign(options, kubeconfig))


async def _campaign(options: argparse.Namespace, kubeconfig: Path) -> int:
    seeds = [options.seed] if options.seed is not None else range(options.seed_base, options.seed_base + options.runs)
    campaign = Campaign(len(seeds))
    folder = options.out.parent / options.out.stem
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.seed is not None:
        print(_plan(options))
    if not faketime():
        print("libfaketime is not installed: all clocks are right in these runs", file=sys.stderr)
    source = iter(seeds)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    deadline = campaign.began + options.minutes * 60 if options.minutes else None

    async def work() -> None:
        for seed in _until(source, deadline):
            verdict = await run(seed, kubeconfig, folder, seconds=options.seconds, cluster=options.cluster_faults)
            campaign.verdicts.append(verdict)
            with options.out.open("a") as file:
                file.write(verdict.line() + "\n")
            print(campaign.progress(verdict), flush=True)
            for text in verdict.violations[:5]:
                print(f"      {text[:400]}", flush=True)

    workers = [asyncio.create_task(work()) for _ in range(options.parallel)]
    stopping = asyncio.create_task(stop.wait())
    everything: asyncio.Future[list[None]] = asyncio.gather(*workers)
    waited: list[asyncio.Future[Any]] = [everything, stopping]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        print("interrupted: ending the runs under way", file=sys.stderr)
        everything.cancel()
    stopping.cancel()
    await asyncio.gather(everything, stopping, *workers, return_exceptions=True)
    errors = [w.exception() for w in workers if not w.cancelled() and w.exception()]
    print(campaign.summary())
    for verdict in campaign.failed:
        print(f"  seed {verdict.seed}: {verdict.violations[0][:200]}")
        again = f"--seed {verdict.seed}" + (" --cluster-faults" if options.cluster_faults else "")
        again += f" --seconds {options.seconds}" if options.seconds else ""
        print(f"      again: make chaos CHAOS_ARGS='{again}'   kept: {folder / str(verdict.seed)}")
    for error in errors:
        print(f"a worker broke: {error!r}", file=sys.stderr)
    return 1 if campaign.failed or errors else 130 if stop.is_set() else 0


def _plan(options: argparse.Namespace) -> Plan:
    return draw(options.seed, seconds=options.seconds, skews=bool(faketime()), cluster=options.cluster_faults)


def _until(seeds: Iterator[int], deadline: float | None) -> Iterator[int]:
    """The next seeds, as long as there is time; shared by all workers."""
    for seed in seeds:
        if deadline is not None and time.monotonic() > deadline:
            return
        yield seed


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20, help="how many (%(default)s)")
    parser.add_argument("--parallel", type=int, default=2, help="so many at a time (%(default)s)")
    parser.add_argument("--seed-base", type=int, default=1, help="the first seed (%(default)s)")
    parser.add_argument("--seed", type=int, help="the run of this seed alone, with its plan")
    parser.add_argument("--show", action="store_true", help="print the plan of --seed and end")
    parser.add_argument("--seconds", type=float, help="length of each run's chaos (default 8 to 12, by the seed)")
    parser.add_argument("--minutes", type=float, help="begin no run after so long")
    parser.add_argument("--kubeconfig", help="default: KUBECONFIG, or the devcluster `chaos`")
    parser.add_argument("--out", type=Path, default=Path("out/chaos.jsonl"), help="(%(default)s)")
    parser.add_argument(
        "--cluster-faults", action="store_true", help="API server, etcd and the others fail, too; one run at a time"
    )
    options = parser.parse_args()
    if options.cluster_faults:
        # They hit every run of the cluster.
        options.parallel = 1
    if options.show and options.seed is None:
        parser.error("--show needs --seed")
    return options


if __name__ == "__main__":
    sys.exit(main())
