"""How endpoints are named on the command line: `NETWORK NAME...`, or each by itself.

By itself an endpoint is its id, NETWORK/NAME (or an id, or an address, after the slash), an address that only one
network has, or a name that only one has. What fits several is refused with all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli import suggest
from kvnet.errors import AmbiguousName, NotFound

if TYPE_CHECKING:
    from kvnet.client import Client
    from kvnet.wire import Endpoint

Command = TypeVar("Command", bound=Callable[..., Any])

SHOWN = 5


def endpoint_arguments(command: Command) -> Command:
    """The words that name endpoints, for `spelt`."""
    return click.argument(
        "words",
        nargs=-1,
        required=True,
        metavar="{NETWORK ENDPOINT... | NETWORK/ENDPOINT...}",
        shell_complete=suggest.endpoints,
    )(command)


def spelt(words: Sequence[str]) -> list[tuple[str, str]]:
    """(network, endpoint) of each; the network is "" where none is named."""
    if len(words) > 1 and "/" not in words[0]:
        return [(words[0], word) for word in words[1:]]
    return [(network, name) for network, _, name in (word.rpartition("/") for word in words)]


async def endpoint(client: Client, network: str, name: str) -> Endpoint:
    """
    Raises:
        NotFound, AmbiguousName
    """
    if network and not is_address(name):
        return await client.get_endpoint(network, name)
    if is_address(name):
        return only([e async for e in client.endpoints(network=network, address=name)], name)
    every = [e async for e in client.endpoints()]
    return only([e for e in every if e["id"] == name] or [e for e in every if e["name"] == name], name)


async def place(client: Client, network: str, name: str) -> tuple[str, str]:
    """(network, endpoint) as the API takes them; asks only where the words do not say it already."""
    if network and not is_address(name):
        return network, name
    found = await endpoint(client, network, name)
    return found["network"], found["id"]


def only(found: Sequence[Endpoint], name: str) -> Endpoint:
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(f"there is no endpoint {name!r}", fix="'kvnet endpoint ls' shows the endpoints")
    shown = _few(f"{e['network_name']}/{e['name']} ({e['id']})" for e in found)
    raise AmbiguousName(f"{name!r} is {len(found)} endpoints: {shown}", fix="name it as NETWORK/NAME, or by its id")


def _few(names: Iterable[str]) -> str:
    every = sorted(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
