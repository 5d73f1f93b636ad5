"""Names for shell completion, asked of the controller: quickly or not at all.

A shell is waiting with every key, so nothing is repeated and every failure just suggests nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
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


def hosts(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, lambda client: client.hosts())


def pools(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, lambda client: client.pools())


def _names(
    ctx: click.Context, incomplete: str, listed: Callable[[Client], AsyncIterator[Mapping[str, Any]]]
) -> list[str]:
    import asyncio

    from kvnet.client import Client

    session = ctx.ensure_object(Session)

    async def ask() -> list[str]:
        async with asyncio.timeout(PATIENCE_S), Client(session.controller, token=session.token, attempts=1) as client:
            return [thing["name"] async for thing in listed(client) if thing["name"].startswith(incomplete)]

    try:
        return asyncio.run(ask())[:MOST]
    except (KvnetError, TimeoutError):
        return []
