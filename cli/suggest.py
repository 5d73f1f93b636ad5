"""Names for shell completion, asked of the controller: quickly or not at all.

A shell is waiting with every key, so nothing is repeated and every failure just suggests nothing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.session import Session, profiles_path
from kvnet.errors import KvnetError

if TYPE_CHECKING:
    from kvnet.client import Client

PATIENCE_S = 1.0
MOST = 200
DRIVERS = ("overlay", "bridge", "routed", "transparent")
STATES = ("alive", "down", "fenced", "leaving", "evicted")

Suggestion = Callable[[click.Context, click.Parameter, str], list[str]]


def of(words: Iterable[str]) -> Suggestion:
    """One of a fixed list, where others are taken as well: the controller may know more than this command."""
    known = tuple(words)
    return lambda _context, _parameter, incomplete: [word for word in known if word.startswith(incomplete)]


def networks(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, lambda client: client.networks())


def subnets(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Those of the network that was named before."""
    name = _before(ctx)
    found = _asked(ctx, lambda client: _subnets_of(client, name)) if name else []
    return [cidr for cidr in found if cidr.startswith(incomplete)]


async def _subnets_of(client: Client, name: str) -> list[str]:
    return [subnet["cidr"] for subnet in (await client.get_network(name))["subnets"]]


def hosts(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, lambda client: client.hosts())


def pools(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, lambda client: client.pools())


def tokens(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    found = _asked(ctx, _token_names)
    return [name for name in found if name.startswith(incomplete)]


async def _token_names(client: Client) -> list[str]:
    return [one["name"] for one in await client.tokens()]


def endpoints(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """After a network its endpoints' names, else networks and NETWORK/NAME."""
    network = _before(ctx)
    if network and "/" not in network:
        return _asked(ctx, lambda client: _endpoint_names(client, network, incomplete))
    if "/" in incomplete:
        network = incomplete.partition("/")[0]
        return _asked(ctx, lambda client: _endpoint_names(client, network, incomplete, prefix=f"{network}/"))
    return networks(ctx, _parameter, incomplete)


async def _endpoint_names(client: Client, network: str, incomplete: str, prefix: str = "") -> list[str]:
    found = [prefix + e["name"] async for e in client.endpoints(network=network)]
    return [name for name in found if name.startswith(incomplete)]


def reservations(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Of the network that was named before."""
    network = _before(ctx)
    return _names(ctx, incomplete, lambda client: client.reservations(network)) if network else []


def holds(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, lambda client: client.holds(), member="id")


def things(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """KIND/NAME, as `kvnet wait` takes them."""
    listed: Mapping[str, Suggestion] = {"network": networks, "endpoint": endpoints, "host": hosts, "pool": pools}
    kind, slash, rest = incomplete.partition("/")
    if not slash:
        return [f"{name}/" for name in listed if name.startswith(kind)]
    suggestion = listed.get(kind)
    return [f"{kind}/{name}" for name in suggestion(ctx, _parameter, rest)] if suggestion else []


def profiles(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from cli.profiles import read

    try:
        known = read(Path(profiles_path(os.environ))).named
    except KvnetError:
        return []
    return [name for name in known if name.startswith(incomplete)]


def filter_values(ctx: click.Context, key: str) -> list[str]:
    """What the filter of that name may be asked for."""
    fixed = {"driver": DRIVERS, "state": STATES, "family": ("4", "6")}
    if key in fixed:
        return list(fixed[key])
    listed: Mapping[str, Callable[[Client], AsyncIterator[Mapping[str, Any]]]] = {
        "network": lambda client: client.networks(),
        "host": lambda client: client.hosts(),
    }
    if key == "label":
        return _asked(ctx, _labels)
    return _names(ctx, "", listed[key]) if key in listed else []


async def _labels(client: Client) -> list[str]:
    found = [label async for network in client.networks() for label in network["labels"].items()]
    return sorted({f"{key}={value}" if value else key for key, value in found})


def _before(ctx: click.Context) -> str:
    """The first argument. While a later one has no value yet, click may leave the earlier ones unparsed."""
    for member in ("network", "name", "words", "names"):
        given = ctx.params.get(member)
        if given:
            return str(given if isinstance(given, str) else given[0])
    return next(iter(ctx.args), "")


def _names(
    ctx: click.Context,
    incomplete: str,
    listed: Callable[[Client], AsyncIterator[Mapping[str, Any]]],
    member: str = "name",
) -> list[str]:
    async def names(client: Client) -> list[str]:
        return [thing[member] async for thing in listed(client) if thing[member].startswith(incomplete)]

    return _asked(ctx, names)


def _asked(ctx: click.Context, question: Callable[[Client], Awaitable[list[str]]]) -> list[str]:
    import asyncio

    from kvnet.client import Client

    session = ctx.ensure_object(Session)

    async def ask() -> list[str]:
        async with (
            asyncio.timeout(PATIENCE_S),
            Client(session.controller, token=session.token, trust=session.trust, attempts=1) as client,
        ):
            return await question(client)

    try:
        return asyncio.run(ask())[:MOST]
    except (KvnetError, TimeoutError):
        return []
