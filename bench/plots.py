"""The growth curves as pictures: a point for each number of instances; no script, and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pygal
from pygal.style import CleanStyle

from bench.figures import Json, Place, figure


class Plot(NamedTuple):
    """A picture: its file's name, its title, and what is drawn as (legend, where the figure is in a size's results)."""

    name: str
    title: str
    lines: tuple[tuple[str, Place], ...]


PLOTS = (
    Plot(
        "growth-rate",
        "created at once: a second",
        (
            ("instances", ("create", "per_second")),
            ("pairs by hand, at most 1,000", ("create", "addressed_pairs_per_second", 0)),
            ("pairs beside so many instances", ("create", "addressed_pairs_per_second", 1)),
        ),
    ),
    Plot(
        "growth-cpu",
        "operator: CPU milliseconds",
        (
            ("an instance created", ("create", "cpu_ms_per_instance", "operator")),
            ("a patch followed", ("patches", "operator_cpu_ms_per_patch")),
        ),
    ),
    Plot(
        "growth-everybody",
        "everybody, API server and all: CPU milliseconds",
        (
            ("an instance created", ("create", "cpu_ms_per_instance", "all")),
            ("a pair by hand, alone", ("create", "cpu_ms_per_addressed_pair", "all")),
            ("a pair beside so many instances", ("create", "cpu_ms_per_addressed_pair_after", "all")),
            ("without a cluster IP, beside", ("create", "cpu_ms_per_pair_after", "all")),
        ),
    ),
    Plot(
        "growth-memory",
        "operator: MiB",
        (
            ("resident", ("rest", "rss_mib")),
            ("at most", ("rest", "rss_peak_mib")),
            ("after a restart", ("restart", "rss_mib")),
        ),
    ),
    Plot(
        "growth-restart",
        "restart: seconds",
        (("ready", ("restart", "ready_seconds")), ("all looked through", ("restart", "all_looked_through_seconds"))),
    ),
)


def draw(sizes: list[Json], folder: Path) -> list[str]:
    """Write the pictures of results of `fleet`; the names of their files."""
    made = []
    for plot in PLOTS:
        # No tooltips: their script would come from a server of others.
        chart = pygal.XY(
            title=plot.title,
            x_title="instances",
            style=CleanStyle,
            js=(),
            width=640,
            height=360,
            include_x_axis=True,
            legend_at_bottom=True,
        )
        for legend, place in plot.lines:
            chart.add(legend, [(size["instances"], y) for size in sizes if (y := figure(size, place)) is not None])
        file = folder / f"{plot.name}.svg"
        file.write_bytes(chart.render())
        made.append(file.name)
    return made
