"""Which plots a recorded part gives. Pure: figures in, SVG text out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from bench import svg
from bench.record import Part

Plots = Iterator[tuple[str, str]]

KINDS = ("endpoints", "hosts", "networks")
DRIVERS = {
    "kvnet": "kvnet",
    "bridge": "Docker's bridge",
    "overlay": "Docker's overlay, etcd",
    "kvnet_beside_swarm": "kvnet, beside a swarm",
    "swarm": "Swarm's overlay",
}


def of(part: Part) -> Plots:
    yield from PLOTS[part.name](part) if part.name in PLOTS else ()


def _curves(part: Part) -> Plots:
    for name, title, figures in (
        ("host-pass", "A whole pass of a host", "host_pass_by_{}"),
        ("host-change", "One endpoint more: what a host computes", "host_change_by_{}"),
        ("host-memory", "Memory of what a host carries", "host_memory_by_{}"),
    ):
        yield from _curve(part, name, title, {kind: figures.format(kind) for kind in KINDS})
    for name, title, figures in (
        ("controller-create", "A creation: processor time of the controller", "controller_create_by_{}"),
        ("controller-start", "A controller's start", "controller_start_by_{}"),
        ("controller-memory", "A controller's memory", "controller_memory_by_{}"),
    ):
        yield from _curve(part, name, title, {kind: figures.format(kind) for kind in ("endpoints", "networks")})
    names = {"processor, ms": "host_idle_by_cluster", "memory, MB": "host_resident_by_cluster"}
    yield from _curve(part, "host-elsewhere", "A host, while the rest of the cluster grows", names)


def _curve(part: Part, name: str, title: str, figures: Mapping[str, str]) -> Plots:
    lines, units = {}, set[str]()
    for label, figure in figures.items():
        details = part.details(figure)
        if details.get("points"):
            lines[f"{label}: exponent {part.value(figure) or 0.0:.2f}"] = [(x, y) for x, y in details["points"]]
            units.add(str(details["unit"]))
    if lines:
        yield f"{name}.svg", svg.curves(title, "how many there are", " / ".join(sorted(units)), lines)


def _peers(part: Part) -> Plots:
    """One plot a kind of unit, for bars of different ones cannot be compared."""
    for name, title, unit, whats in (
        (
            "docker-times",
            "What Docker's users wait for",
            "ms",
            ("network_listed_elsewhere", "connect", "run_to_first_ping"),
        ),
        ("docker-throughput", "One TCP stream between two containers", "Gbit/s", ("gbit",)),
    ):
        groups = {what.replace("_", " "): _bars(part, DRIVERS, "{}_" + what) for what in whats}
        if any(groups.values()):
            yield f"{name}.svg", svg.bars(title, unit, groups)


def _scale(part: Part) -> Plots:
    stores = {"sqlite_1000": "SQLite, one controller", "etcd_1000": "etcd, three controllers"}
    labels = {"applied_p50": "p50 of hosts", "applied_p99": "p99 of hosts", "everywhere_max": "the last host, at most"}
    groups = {label: _bars(part, stores, "{}_" + what) for what, label in labels.items()}
    if any(groups.values()):
        yield "scale.svg", svg.bars("One change on 1,000 hosts, until applied", "ms", groups)


def _creation(part: Part) -> Plots:
    groups = {}
    for label, kind in (("one a request", "single"), ("lists of 100", "bulk")):
        rate, share = part.value(f"{kind}_per_s"), part.value(f"{kind}_of_store")
        if rate is not None and share:
            groups[label] = {"kvnet, three controllers": rate, "the store's own transactions x batch": rate / share}
    if groups:
        yield "creation.svg", svg.bars("Endpoints created on etcd", "1/s", groups)


def _bars(part: Part, names: Mapping[str, str], figure: str) -> dict[str, float]:
    values = {label: part.value(figure.format(name)) for name, label in names.items()}
    return {label: value for label, value in values.items() if value is not None}


PLOTS: Mapping[str, Callable[[Part], Plots]] = {
    "curves": _curves,
    "peers": _peers,
    "scale": _scale,
    "creation": _creation,
}
