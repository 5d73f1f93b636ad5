"""Names for shell completion, asked of the controller: quickly or not at all.

A shell is waiting with every key, so nothing is repeated and every failure just suggests nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from cli.session import Session
from kvnet.errors import KvnetError

if TYPE_CHECKING:
    from kvnet.client import Client

PATIENCE_S = 1.0
MOST = 200


def networks(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, lambda client: client.networks())


def subnets(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Those of the network that was named before."""
    # While an option has no value yet, click leaves the arguments before it unparsed.
    name = ctx.params.get("name") or next(iter(ctx.args), "")
    found = _asked(ctx, lambda client: _subnets_of(client, name)) if name else []
    return [cidr for cidr in found if cidr.startswith(incomplete)]


async def _subnets_of(client: Client, name: str) -> list[str]:
    return [subnet["cidr"] for subnet in (await client.get_network(name))["subnets"]]


def hosts(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, lambda client: client.hosts())


def pools(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, lambda client: client.pools())


def _names(
    ctx: click.Context, incomplete: str, listed: Callable[[Client], AsyncIterator[Mapping[str, Any]]]
) -> list[str]:
    async def names(client: Client) -> list[str]:
        return [thing["name"] async for thing in listed(client) if thing["name"].startswith(incomplete)]

    return _asked(ctx, names)


def _asked(ctx: click.Context, question: Callable[[Client], Awaitable[list[str]]]) -> list[str]:
    import asyncio

    from kvnet.client import Client

    session = ctx.ensure_object(Session)

    async def ask() -> list[str]:
        async with asyncio.timeout(PATIENCE_S), Client(session.controller, token=session.token, attempts=1) as client:
            return await question(client)

    try:
        return asyncio.run(ask())[:MOST]
    except (KvnetError, TimeoutError):
        return []
