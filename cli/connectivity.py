"""`kvnet connectivity test`: who reaches whom, as a matrix, and what to do about whom that is not.

The controller has it tested; here it is asked in parts, so that a person sees how far it is, and put together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.failures import FAILURE
from cli.lazy import LazyGroup
from cli.safe import safe
from cli.session import connected, current, output_option
from cli.table import render

if TYPE_CHECKING:
    from kvnet.client import Client

PARTS = 20  # requests for endpoints, at most
MAX_SHOWN = 40


@click.group(cls=LazyGroup, table={})
def connectivity() -> None:
    """Whether hosts and endpoints reach each other."""


@connectivity.command("test")
@click.option("--network", "networks", multiple=True, metavar="NAME", help="Only endpoints of this network. [repeat]")
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="Only between these hosts. [repeat]")
@click.option("--hosts-only", is_flag=True, help="Only hosts, no endpoints.")
@click.option("--all-endpoints", is_flag=True, help="Every endpoint, not one for each host and network.")
@output_option
@connected
async def test(
    client: Client, *, networks: Sequence[str], hosts: Sequence[str], hosts_only: bool, all_endpoints: bool
) -> None:
    """Send marked packets between all hosts and endpoints, both ways, and count what arrives.

    Between hosts: the tunnel's UDP port, the largest packet that passes whole, ping. Between endpoints: ping, from
    inside the workloads. Nothing is changed anywhere. Exit code 1 if anything fails.
    """
    wish: dict[str, Any] = {"hosts": list(hosts) or None, "all_endpoints": all_endpoints}
    answers = await _asked(client, wish, list(networks), hosts_only=hosts_only)
    report = merged(answers)
    session = current()
    if output.as_data(session):
        output.show_data(report, session.output)
    else:
        for line in lines(report):
            click.echo(line)
    if not report["ok"]:
        click.get_current_context().exit(FAILURE)


async def _asked(
    client: Client, wish: Mapping[str, Any], networks: list[str], *, hosts_only: bool
) -> list[dict[str, Any]]:
    from cli.progress import waiting

    with waiting("testing hosts") as progress:
        between: dict[str, Any] = {**wish, "networks": networks or None, "between": "hosts"}
        answers = [await client.test_connectivity(between)]
        if hosts_only:
            return answers
        names = networks or [network["name"] async for network in client.networks()]
        parts = [names[i : i + _size(len(names))] for i in range(0, len(names), _size(len(names)))]
        for done, part in enumerate(parts):
            progress.step(done + 1, len(parts) + 1, f"testing endpoints of {_some(part)}")
            answers.append(await client.test_connectivity({**wish, "networks": part, "between": "endpoints"}))
    return answers


def _size(count: int) -> int:
    return max(1, -(-count // PARTS))


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more networks"


def merged(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The answers to the parts of one test as one; the first is that about hosts."""
    counts: dict[str, int] = {}
    for one in (one for answer in answers for one in answer["not_tried"]):
        counts[one["what"]] = counts.get(one["what"], 0) + one["count"]
    return {
        "ok": all(answer["ok"] for answer in answers),
        "failures": sum(answer["failures"] for answer in answers),
        "hosts": answers[0]["hosts"],
        "links": answers[0]["links"],
        "endpoints": [one for answer in answers for one in answer["endpoints"]],
        "not_tried": [{"what": what, "count": count} for what, count in sorted(counts.items())],
        "took_s": round(sum(answer["took_s"] for answer in answers), 3),
    }


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield from _matrix(report)
    yield _summary(report)
    failed = [one for one in (*report["links"], *report["endpoints"]) if one["status"] != "ok"]
    for one in failed[:MAX_SHOWN]:
        yield ""
        yield f"{_who(one)}: {cell(one)}"
        yield f"  {safe(one['detail'])}"
        if one["fix"]:
            yield f"  fix: {safe(one['fix'])}"
    if len(failed) > MAX_SHOWN:
        yield ""
        yield f"and {len(failed) - MAX_SHOWN} more: -o json has them all"
    yield from _remarks(report)


def cell(one: Mapping[str, Any]) -> str:
    if one["status"] == "mtu" and one.get("mtu") and one["mtu"]["passes"]:
        return f"mtu {one['mtu']['passes']}"
    if one["status"] == "loss" and one.get("tunnel"):
        sent, through = one["tunnel"]["sent"], one["tunnel"]["through"]
        got = one["tunnel"]["arrived"] if through is None else through
        return f"loss {100 * (sent - got) / sent:.0f}%"
    return str(one["status"]).replace("-", " ")


def _matrix(report: Mapping[str, Any]) -> Iterator[str]:
    names = [host["name"] for host in report["hosts"]]
    if len(names) < 2:
        return
    cells = {(one["from"], one["to"]): cell(one) for one in report["links"]}
    rows = [[safe(a), *(cells.get((a, b), "") for b in names)] for a in names]
    yield from render(["FROM/TO", *map(safe, names)], rows)
    yield ""


def _summary(report: Mapping[str, Any]) -> str:
    parts = []
    for what, some in (("ways between hosts", report["links"]), ("pairs of endpoints", report["endpoints"])):
        good = sum(one["status"] == "ok" for one in some)
        if some:
            parts.append(f"{good} of {len(some)} {what} ok{_round_trip(some)}")
    return "; ".join(parts) or "nothing to test: there are not two hosts, nor two endpoints on a network"


def _round_trip(some: Sequence[Mapping[str, Any]]) -> str:
    times = [one["rtt_ms"] for one in some if one["rtt_ms"]]
    if not times:
        return ""
    return f" ({min(t['min'] for t in times):.1f} ms to {max(t['max'] for t in times):.1f} ms)"


def _who(one: Mapping[str, Any]) -> str:
    if isinstance(one["from"], str):
        return safe(f"{one['from']} -> {one['to']}")
    there, family = one["to"], f" (IPv{one['family']})" if one["family"] == 6 else ""
    return safe(
        f"{one['network']['name']}: {one['from']['name']} on {one['from']['host']} -> {there['name']} on "
    ) + safe(f"{there['host']}{family}")


def _remarks(report: Mapping[str, Any]) -> Iterator[str]:
    """What is fine and yet worth a line, each once."""
    told = [
        one["detail"] for one in (*report["links"], *report["endpoints"]) if one["status"] == "ok" and one["detail"]
    ]
    remarks = list(dict.fromkeys(told))
    left_out = [f"not tried: {one['count']} {one['what']}" for one in report["not_tried"]]
    if remarks or left_out:
        yield ""
    yield from (f"note: {safe(text)}" for text in remarks[:MAX_SHOWN])
    yield from (safe(text) for text in left_out)
