"""The figures as a table: what was asked for, what was measured, by which command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.figures import Json, Place, figure


@dataclass(frozen=True)
class Ratio:
    """A figure that hardly depends on the machine, because both sides were measured in the same run."""

    what: str
    place: Place
    low_is_good: bool = False


RATIOS = (
    Ratio("cold start over the pair by hand, kwok", ("cold_start", "ratio_p50"), low_is_good=True),
    Ratio("cold start over the pair by hand, kubelet", ("cold_start_kubelet", "ratio_p50"), low_is_good=True),
    Ratio("joins over many instances, of plain patches", ("joins", "many_ratio")),
    Ratio("instances created at once, of pairs by a plain client", ("fleet", "create", "addressed_ratio")),
    Ratio("instances created at once, of pairs without a cluster IP", ("fleet", "create", "ratio")),
    Ratio("patches with the operator, of those without", ("fleet", "patches", "ratio")),
    Ratio("API writes per instance", ("fleet", "create", "writes_per_instance"), low_is_good=True),
)


def value(results: Json, place: Place) -> float | None:
    """A figure; those of `fleet` are of its largest size up to 1,000. None where it was not measured."""
    if place[0] != "fleet":
        return figure(results, place)
    sizes = [size for size in results.get("fleet", {}).get("sizes", ()) if size["instances"] <= 1000]
    return figure(sizes[-1], place[1:]) if sizes else None


def markdown(results: Json, pictures: Sequence[str] = ()) -> str:
    """A page with the table of figures and the growth from size to size; ``pictures`` are files in its images/."""
    lines = [
        "# Figures",
        "",
        f"{results['machine']}, everything on one machine: API server, etcd, operator, and the clients that load it."
        + (" Small sizes (`make bench-quick`)." if results["quick"] else " `make bench` measures them again."),
        "",
        "| what | asked for | measured | by | at commit |",
        "|---|---|---|---|---|",
        *(f"| {r.what} | {r.asked} | {r.measured} | `python -m bench.{r.by}` | {r.at} |" for r in rows(results)),
        "",
        "## Growth",
        "",
        *growth(results["fleet"]["sizes"]),
        *(line for name in pictures for line in ("", f"![{name.removesuffix('.svg')}](images/{name})")),
    ]
    return "\n".join(lines) + "\n"


class Row(NamedTuple):
    """A figure: what it is of, what was asked for, what was measured, by which bench, of which commit."""

    what: str
    asked: str
    measured: str
    by: str
    at: str = ""


def rows(results: Json) -> Iterator[Row]:
    """All that were measured."""
    yield from _cold_starts(results)
    yield from _at(results["joins"], _joins(results["joins"]))
    for size in results["fleet"]["sizes"]:
        yield from _at({**results["fleet"], **size}, _of_size(size))
    if soaked := results.get("soak"):
        yield from _at(soaked, [_soak(soaked)])
    if shards := results.get("shards"):
        yield from _at(shards, [_shards(shards)])


def _at(report: Json, found: Iterable[Row]) -> Iterator[Row]:
    """The rows of a report, with its commit."""
    return (row._replace(at=report["commit"]) for row in found)


def _cold_starts(results: Json) -> Iterator[Row]:
    for key, node, asked in (
        ("cold_start_kubelet", "real kubelet", "ratio ≤ 1.1, added p50 ≤ 100 ms"),
        ("cold_start", "idle kwok node", "ratio ≤ 2"),
    ):
        if cold := results.get(key):
            measured = (
                f"p50 {cold['instance_ms']['p50']} ms against {cold['pair_ms']['p50']} ms: ratio {cold['ratio_p50']}, "
                f"added {cold['added_p50_ms']} ms"
            )
            what = f"cold start against Service and Pod made by hand, {node}"
            by = "cold_start" if node == "real kubelet" else "cold_start --fake"
            yield from _at(cold, [Row(what, asked, measured, by)])


def _joins(joined: Json) -> Iterator[Row]:
    yield Row(
        "join through REST, warm instance",
        "p50 ≤ 20 ms, p99 ≤ 100 ms",
        f"p50 {joined['join_ms']['p50']} ms, p99 {joined['join_ms']['p99']} ms",
        "joins",
    )
    yield Row(
        "joins over many instances, of plain status patches",
        "≥ 0.8",
        f"{joined['many_ratio']} ({_list(joined['many_rest_per_second'])} a second, "
        f"{_list(joined['many_plain_per_second'])})",
        "joins",
    )
    yield Row(
        "API writes per join through REST, everybody's",
        "1",
        f"{joined['many_writes_per_join']}",
        "joins",
    )
    yield Row(
        f"{joined['hot_crowd']} joins at once on one instance",
        "≥ 1,000 a second",
        f"{_list(joined['hot_crowd_joins_per_second'])} a second",
        "joins",
    )


def _of_size(size: Json) -> Iterator[Row]:
    many, made = f"{size['instances']:,}", size["create"]
    by = f"fleet --sizes {size['instances']}"
    yield Row(
        f"{many} created at once, of the rate of Services and Pods by a plain client",
        "≥ 0.7, ≤ 12 writes each",
        f"{made['addressed_ratio']}{_span(made['addressed_ratios'])} "
        f"({made['per_second']} a second, {_list(made['addressed_pairs_per_second'])}), "
        f"{made['writes_per_instance']} writes each, {made['conflicts_per_instance']} conflicts",
        by,
    )
    yield Row(
        f"the same of {many}, where the client's Services have no cluster IP either",
        "",
        f"{made['ratio']}{_span(made['ratios'])} (pairs: {_list(made['pairs_per_second'])} a second)",
        by,
    )
    yield Row(
        f"API writes by the operator for each of {many} cold starts",
        "≤ 4",
        f"{made['operator_writes_per_instance']}",
        by,
    )
    if patched := size.get("patches"):
        yield from _patched(many, patched, by)
    if rest := size.get("rest"):
        again = f" ({again} after a restart)" if (again := size.get("restart", {}).get("rss_mib")) else ""
        yield Row(
            f"operator with {many}: memory, idle CPU",
            "≤ 300 MiB, ≤ 5 % of a core (5,000)",
            f"{rest['rss_mib']} MiB{again}, {rest['cpu_percent_of_a_core']} %",
            by,
        )
    if restart := size.get("restart"):
        yield Row(
            f"restart with {many} until all is looked through",
            "≤ 15 s (5,000)",
            f"{restart['all_looked_through_seconds']} s",
            by,
        )
    if idle := size.get("idle"):
        late = idle["late_ms"]
        yield Row(
            f"idle collection of {many} after each one's deadline",
            "within 2 s",
            f"p99 {late['p99'] / 1000:.2f} s, largest {late['max'] / 1000:.2f} s",
            by,
        )


def _patched(many: str, patched: Json, by: str) -> Iterator[Row]:
    yield Row(
        f"backend patches of {many} in use, of the rate without the operator",
        "≥ 0.8, reaction p99 ≤ 1 s",
        f"{patched['ratio']} ({_list(patched['per_second'])} a second, "
        f"{_list(patched['without_operator_per_second'])}), "
        f"p99 {patched['reaction_ms']['p99']} ms",
        by,
    )
    yield Row(
        f"the same of {many}, each the first to come or the last to leave: two writes each",
        "",
        f"{patched['first_and_last_ratio']} ({patched['first_and_last_per_second']} a second)",
        by,
    )


def _soak(soaked: Json) -> Row:
    rest = soaked["at_rest"]
    grown = "; ".join(soaked["grown"]) or "nothing grew"
    return Row(
        f"{soaked['minutes']:.0f} minutes of users and faults",
        "flat; nobody culled, no claim left",
        f"{grown}; {rest['culled_active']:.0f} culled, {rest['claims']} claims left; {rest['operator_mib']} MiB, "
        f"{rest['operator_fds']:.0f} files at rest",
        "soak",
    )


def _shards(shards: Json) -> Row:
    return Row(
        "two shards, of the rate of one, where the operator is the bound",
        "about 1.8",
        f"{shards['faster']}{_span(shards['faster_least_and_most'])} "
        f"({_rates(shards['two'])} a second, {_rates(shards['one'])}, each operator with {shards['cores']} of a core)",
        "shards",
    )


def growth(sizes: list[Json]) -> Iterator[str]:
    """How cost grows with the number of instances."""
    yield (
        "| instances | created a second | ms per instance, the operator's | everybody's | of a pair by hand, alone | "
        "beside the instances | without a cluster IP, alone | beside | the operator's ms per patch | MiB | "
        "after a restart | idle CPU | looked through |"
    )
    yield "|" + "---|" * 13
    for size in sizes:
        made, patched, rest, restart = (size.get(step, {}) for step in ("create", "patches", "rest", "restart"))
        cells = (
            f"{size['instances']:,}",
            made["per_second"],
            made["cpu_ms_per_instance"]["operator"],
            made["cpu_ms_per_instance"]["all"],
            made["cpu_ms_per_addressed_pair"]["all"],
            made["cpu_ms_per_addressed_pair_after"]["all"],
            made["cpu_ms_per_pair"]["all"],
            made["cpu_ms_per_pair_after"]["all"],
            patched.get("operator_cpu_ms_per_patch", ""),
            rest.get("rss_mib", ""),
            restart.get("rss_mib", ""),
            _with(rest.get("cpu_percent_of_a_core"), "%"),
            _with(restart.get("all_looked_through_seconds"), "s"),
        )
        yield f"| {' | '.join(str(cell) for cell in cells)} |"


def _with(number: float | None, unit: str) -> str:
    return "" if number is None else f"{number} {unit}"


def _span(numbers: list[float]) -> str:
    return f" [{min(numbers)} to {max(numbers)}]" if len(numbers) > 1 else ""


def _rates(rounds: list[Json]) -> str:
    return _list([one["per_second"] for one in rounds])


def _list(numbers: list[float]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)
