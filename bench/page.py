"""docs/performance.md and its plots, made of the recorded figures: the tables between marks, and the SVG files.

Pure but for `write`. What stands around the marks is written by hand. A part that was never measured shows dashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import plots, record
from bench.record import Part

PAGE = record.ROOT / "docs" / "performance.md"
IMAGES = record.ROOT / "docs" / "images" / "performance"
BLOCK = re.compile(r"(<!-- bench: (?P<name>[a-z_]+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Row:
    """`cells`: names of figures, one a column; the last column but the verdict may be a target by itself."""

    title: str
    cells: Sequence[str]


@dataclass(frozen=True, slots=True)
class Block:
    """A table of one part. `heads`: of the columns of figures; with one only, targets and verdicts stand beside."""

    part: str
    rows: Sequence[Row]
    heads: Sequence[str] = ("measured",)


def _one(*rows: tuple[str, str]) -> Sequence[Row]:
    return [Row(title, (name,)) for title, name in rows]


def _each(rows: Sequence[tuple[str, str]], *prefixes: str) -> Sequence[Row]:
    return [Row(title, [f"{prefix}_{name}" for prefix in prefixes]) for title, name in rows]


PEERS = (
    ("network created, ms", "network_create"),
    ("until the other host lists it, ms", "network_listed_elsewhere"),
    ("`docker network connect`, ms", "connect"),
    ("`docker network disconnect`, ms", "disconnect"),
    ("`docker run`, ms", "run"),
    ("`docker run` to the first answer across hosts, ms", "run_to_first_ping"),
    ("one TCP stream, Gbit/s", "gbit"),
    ("round trip, us", "rtt"),
)
SCALE = (
    ("cold start of all workers, s", "cold_start"),
    ("- of which a worker's own processor time, ms", "cold_start_worker"),
    ("- and the controllers', for each worker, ms", "cold_start_controllers"),
    ("change until applied, p50 of hosts, ms", "applied_p50"),
    ("change until applied, p99 of hosts, ms", "applied_p99"),
    ("until the last host has it, p50 of changes, ms", "everywhere_p50"),
    ("until the last host has it, at most, ms", "everywhere_max"),
    ("hosts that did not get it", "hosts_without"),
    ("a change: processor time of one host, us", "change_worker"),
    ("a change: of all controllers, ms", "change_controllers"),
    ("a change: of the store, ms (SQLite is in the controller)", "change_store"),
    ("a change: commits, the hosts' reports with it", "change_commits"),
    ("a change: KB written, likewise", "change_bytes"),
    ("1,000 endpoints at once into a network on 100 hosts, s", "burst_one_network"),
    ("1,000 endpoints at once all over the site, s", "burst_spread"),
    ("memory of a worker beyond its interpreter, MB", "worker_memory"),
    ("memory of a controller, MB", "controller_memory"),
    ("at rest: all workers, % of a core", "at_rest_workers"),
    ("at rest: all controllers, % of a core", "at_rest_controllers"),
    ("at rest: the store, % of a core", "at_rest_store"),
)
BLOCKS: Mapping[str, Block] = {
    "peers": Block(
        "peers",
        _each(PEERS, "kvnet", "bridge", "overlay", "kvnet_beside_swarm", "swarm"),
        ("kvnet", "Docker's bridge", "its overlay, etcd", "kvnet, beside a swarm", "Swarm's overlay"),
    ),
    "ratios": Block(
        "peers",
        [Row(title, (f"{what}_to_overlay", f"{what}_to_swarm")) for title, what in PEERS],
        ("kvnet to the overlay", "kvnet to Swarm's"),
    ),
    "scale": Block("scale", _each(SCALE, "sqlite_1000", "etcd_1000"), ("SQLite, one controller", "etcd, three")),
    "curves": Block(
        "curves",
        _one(
            ("host: a whole pass, by endpoints 1k-100k", "host_pass_by_endpoints"),
            ("host: one endpoint more, by endpoints 1k-100k", "host_change_by_endpoints"),
            ("host: memory, by endpoints 1k-100k", "host_memory_by_endpoints"),
            ("host: a whole pass, by hosts 10-1,000", "host_pass_by_hosts"),
            ("host: one endpoint more, by hosts 10-1,000", "host_change_by_hosts"),
            ("host: memory, by hosts 10-1,000", "host_memory_by_hosts"),
            ("host: a whole pass, by networks 10-10,000", "host_pass_by_networks"),
            ("host: one endpoint more, by networks 10-10,000", "host_change_by_networks"),
            ("host: memory, by networks 10-10,000", "host_memory_by_networks"),
            ("host: processor, by what it does not carry, 1k-50k endpoints", "host_idle_by_cluster"),
            ("host: memory, by what it does not carry, 1k-50k endpoints", "host_resident_by_cluster"),
            ("controller: a creation, by endpoints 1k-100k", "controller_create_by_endpoints"),
            ("controller: a page of the list, by endpoints 1k-100k", "controller_page_by_endpoints"),
            ("controller: start, by endpoints 1k-100k", "controller_start_by_endpoints"),
            ("controller: memory, by endpoints 1k-100k", "controller_memory_by_endpoints"),
            ("controller: a creation, by networks 10-10,000", "controller_create_by_networks"),
            ("controller: a page of the list, by networks 10-10,000", "controller_page_by_networks"),
            ("controller: start, by networks 10-10,000", "controller_start_by_networks"),
            ("controller: memory, by networks 10-10,000", "controller_memory_by_networks"),
        ),
        ("exponent",),
    ),
    "limits": Block(
        "limits",
        _one(
            ("SQLite: commits of one put, 1/s", "sqlite_commits_alone"),
            ("SQLite: commits of nine endpoints, 1/s", "sqlite_commits_packed"),
            ("SQLite: endpoints at most, 1/s", "sqlite_endpoints_at_most"),
            ("etcd: commits of one put, 1/s", "etcd_commits_alone"),
            ("etcd: commits of nine endpoints, 1/s", "etcd_commits_packed"),
            ("etcd: endpoints at most, 1/s", "etcd_endpoints_at_most"),
            ("netlink: entries that the kernel takes, 1/s", "netlink_raw"),
            ("netlink: entries that the worker gives it, 1/s", "netlink_worker"),
            ("- of what the kernel takes", "netlink_share"),
            ("VXLAN: throughput of what is made by hand", "overlay_throughput_to_by_hand"),
            ("VXLAN: round trip, made by hand to ours", "overlay_rtt_of_by_hand_to_ours"),
            ("veth and bridge: throughput of what is made by hand", "bridge_throughput_to_by_hand"),
            ("routes: throughput of what is made by hand", "routed_throughput_to_by_hand"),
        ),
    ),
    "creation": Block(
        "creation",
        _one(
            ("one a request, endpoints/s", "single_per_s"),
            ("- p50, ms (192 in flight)", "single_p50"),
            ("- p99, ms", "single_p99"),
            ("- processor time of the controllers, us", "single_controller_cpu"),
            ("- endpoints a store transaction", "single_batch"),
            ("- of the store's transactions x that", "single_of_store"),
            ("in lists of 100, endpoints/s", "bulk_per_s"),
            ("- processor time of the controllers, us an endpoint", "bulk_controller_cpu"),
            ("- endpoints a store transaction", "bulk_batch"),
            ("- of the store's transactions x that", "bulk_of_store"),
            ("doubled, lost, or found by the check", "single_wrong"),
        ),
    ),
    "footprint": Block(
        "footprint",
        _one(
            ("worker with 1,000 remote endpoints, MB", "worker_rss_1000_remote"),
            ("worker at rest, % of a core", "worker_idle_cpu"),
            ("check of a token among 1,000, us", "token_check"),
            ("- of one that nobody knows, us", "token_check_unknown"),
            ("10,000 remote endpoints into the kernel, s", "apply_10000_remote_endpoints"),
            ("a pass that finds 20,000 entries as they should be, ms", "no_op_pass_20000_entries"),
        ),
    ),
}


def rendered(page: str, parts: Mapping[str, Part]) -> str:
    """The page with every block made anew; marks of a name that is not known are left alone."""

    def made(found: re.Match[str]) -> str:
        block = BLOCKS.get(found["name"])
        if block is None:
            return found[0]
        return f"{found[1]}{table(block, parts.get(block.part))}\n{found[3]}"

    return BLOCK.sub(made, page)


def table(block: Block, part: Part | None) -> str:
    is_judged = len(block.heads) == 1
    heads = ["", *block.heads, *(("target", "") if is_judged else ())]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in block.rows:
        cells = [_cell(part, name) for name in row.cells]
        if is_judged:
            cells += _verdict(part, row.cells[0])
        lines.append("| " + " | ".join([row.title, *cells]) + " |")
    return "\n".join([*lines, "", _when(part)])


def _cell(part: Part | None, name: str) -> str:
    value = part.value(name) if part is not None else None
    return "-" if value is None else number(value)


def _verdict(part: Part | None, name: str) -> tuple[str, str]:
    figure = part.figures.get(name) if part is not None else None
    if figure is None or figure["target"] is None:
        return "", ""
    return figure["target"], "" if figure["ok"] else "**not met**"


def number(value: float) -> str:
    """Three digits, or all of a count."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _when(part: Part | None) -> str:
    if part is None:
        return "Not measured yet."
    facts = part.machine
    return (
        f"*{facts['date']} UTC, commit `{facts['commit']}`: {facts['cores']} cores of {facts['cpu']}, "
        f"{facts['memory_mb'] // 1024} GB, Linux {facts['kernel']}, Python {facts['python']}; load before "
        f"{facts['load_before']:g}, {facts['took_s']} s.*"
    )


def images(parts: Mapping[str, Part]) -> Iterator[tuple[str, str]]:
    """Names and texts of the SVG files that these parts give."""
    for part in parts.values():
        yield from plots.of(part)


def write(parts: Mapping[str, Part], page: Path = PAGE, folder: Path = IMAGES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in images(parts):
        (folder / name).write_text(text)
    page.write_text(rendered(page.read_text(), parts))
