"""`kvnet trace A B`: the way of a packet from one endpoint to another, hop by hop on both hosts, and where it ends.

The controller asks the hosts' workers. With --here this command looks at this host's kernel itself, for when there is
no worker to ask. Exit code 0: every hop is as it should be; 1: one is not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import colour, output, suggest
from cli.failures import FAILURE
from cli.safe import safe
from cli.session import connected, current, output_option
from kvnet.errors import Invalid

if TYPE_CHECKING:
    from kvnet.client import Client

MARKS = {"ok": "ok", "differs": "DIFFERS", "unknown": "unknown"}
COLOURS = {"ok": "green", "differs": "red", "unknown": "yellow"}
DEFAULT_STATE = "/var/lib/kvnet"
LONGEST_NAME = 44


@click.command()
@click.argument("source", metavar="A", shell_complete=suggest.endpoints)
@click.argument("target", metavar="B", shell_complete=suggest.endpoints)
@click.option("--tcp", type=click.IntRange(1, 65535), metavar="PORT", help="Of a TCP connection to that port of B.")
@click.option("--udp", type=click.IntRange(1, 65535), metavar="PORT", help="Of a UDP packet to that port of B.")
@click.option("-4", "four", is_flag=True, help="By IPv4. (Default where both have it.)")
@click.option("-6", "six", is_flag=True, help="By IPv6.")
@click.option("--here", metavar="HOST", help="This machine is HOST: look at its kernel from here, without its worker.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=DEFAULT_STATE,
    show_default=True,
    metavar="DIR",
    help="With --here: that of HOST's worker, which has noted where the workloads are.",
)
@output_option
@connected
async def trace(
    client: Client,
    *,
    source: str,
    target: str,
    tcp: int | None,
    udp: int | None,
    four: bool,
    six: bool,
    here: str | None,
    state_dir: Path,
) -> None:
    """The way of a packet from endpoint A to endpoint B and back: what each hop should be, and what is in the kernel.

    A and B: NETWORK/NAME, NETWORK/ADDRESS, an address, an id, or a name that only one endpoint has. Nothing is changed.
    Exit code 1 if a hop is not as it should be, or the host of one does not answer.
    """
    wish = _wish(source, target, tcp, udp, four=four, six=six)
    if here:
        wish["seen"] = {here: await _look(client, wish, here, state_dir)}
    found = await client.trace(wish)
    session = current()
    if output.as_data(session):
        output.show_data(found, session.output)
    else:
        for line in lines(found):
            click.echo(line)
    if not found["whole"]:
        click.get_current_context().exit(FAILURE)


def _wish(source: str, target: str, tcp: int | None, udp: int | None, *, four: bool, six: bool) -> dict[str, Any]:
    if tcp and udp:
        raise Invalid("--tcp and --udp at once", fix="trace one after the other")
    if four and six:
        raise Invalid("-4 and -6 at once", fix="trace one after the other")
    wish: dict[str, Any] = {"from": source, "to": target}
    if tcp or udp:
        wish |= {"protocol": "tcp" if tcp else "udp", "port": tcp or udp}
    if four or six:
        wish["family"] = 4 if four else 6
    return wish


async def _look(client: Client, wish: Mapping[str, Any], here: str, state_dir: Path) -> dict[str, Any]:
    """What this host shows, by the very question that its worker would be asked.

    Raises:
        Invalid: the way does not lead over this host.
    """
    asked = (await client.trace({**wish, "ask": False}))["questions"]
    if here not in asked:
        raise Invalid(f"the way does not lead over {safe(here)}", fix=f"its hosts are {', '.join(map(safe, asked))}")
    from worker.here import look_here

    return await look_here(asked[here], state_dir)


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The page: one line for each hop, then what was found and what to do."""
    one, other = found["from"], found["to"]
    port = f" to port {found['port']}" if found["port"] else ""
    yield f"{_end(one)} -> {_end(other)}, IPv{found['family']}, {found['protocol']}{port}"
    yield ""
    width = min(LONGEST_NAME, max(len(safe(hop["name"])) for hop in found["hops"]))
    direction = "there"
    for hop in found["hops"]:
        if hop["direction"] != direction:
            direction = hop["direction"]
            yield "    and back:"
        yield from _hop(hop, width)
    yield ""
    yield from _verdict(found)
    yield from (f"note: not read: {safe(text)}" for text in found["unread"])


def _end(end: Mapping[str, Any]) -> str:
    return safe(f"{end['network']}/{end['name']} ({end['address']} on {end['host']})")


def _hop(hop: Mapping[str, Any], width: int) -> Iterator[str]:
    mark = _painted(hop["verdict"])
    head = f"{hop['number']:>3} {safe(hop['host'] or '-'):<8} {hop['kind']:<15} {safe(hop['name']):<{width}}  {mark}"
    match hop["verdict"]:
        case "ok":
            yield f"{head}  {safe(hop['found'])}".rstrip()
        case "unknown":
            yield f"{head}  should be: {safe(hop['desired'])}"
        case _:
            yield head
            yield from (_difference(difference) for difference in hop["differences"])
    for repair in hop["repairs"]:
        times = f", {repair['times']} times in {repair['within_seconds'] // 60} min" if repair["times"] > 1 else ""
        yield f"      repaired {_ago(repair['seconds_ago'])} ago: {safe(repair['text'])}{times}"


def _difference(difference: Mapping[str, Any]) -> str:
    what = f"{difference['what']} " if difference["what"] else ""
    found = f"{safe(what)}should be: {safe(difference['desired'])}; is: {safe(difference['found'])}"
    return f"      {found}" + ("" if difference["breaks"] else " (by itself this loses no packet)")


def _verdict(found: Mapping[str, Any]) -> Iterator[str]:
    finding = found["finding"]
    unknown = [str(hop["number"]) for hop in found["hops"] if hop["verdict"] == "unknown"]
    if finding is None:
        yield f"The way is whole: {len(found['hops']) - len(unknown)} hops are as they should be."
        mended = [str(hop["number"]) for hop in found["hops"] if hop["repairs"]]
        if mended:
            yield f"Repaired lately: {_numbered(mended)}. If that goes on, something undoes what kvnet makes."
    else:
        hop = found["hops"][finding["hop"] - 1]
        where = f" on {hop['host']}" if hop["host"] else ""
        yield safe(
            f"Hop {finding['hop']}{where} is not as it should be: {hop['kind']} {hop['name']} ({finding['code']})"
        )
        yield safe(f"  should be:  {finding['what']} {finding['desired']}".rstrip())
        yield safe(f"  is:         {finding['what']} {finding['found']}".rstrip())
        version = hop["version"]
        if version is not None:
            applied = "?" if version["applied"] is None else version["applied"]
            yield f"  version:    revision {applied} of {version['wanted']} is in the kernel"
        yield f"  why:        {safe(finding['reason'])}"
        yield f"  what to do: {safe(finding['fix'])}"
        yield from _others(found["hops"], finding["hop"])
    if unknown:
        yield f"Not looked at: {_numbered(unknown)}."


def _others(hops: Sequence[Mapping[str, Any]], number: int) -> Iterator[str]:
    others = [str(hop["number"]) for hop in hops if hop["verdict"] == "differs" and hop["number"] != number]
    if others:
        yield f"Also different: {_numbered(others)}."


def _numbered(hops: Sequence[str]) -> str:
    return f"hop {hops[0]}" if len(hops) == 1 else f"hops {', '.join(hops)}"


def _painted(verdict: str) -> str:
    mark = f"{MARKS[verdict]:<7}"
    return colour.painted(mark, COLOURS[verdict], is_wanted=colour.wanted(sys.stdout))


def _ago(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
