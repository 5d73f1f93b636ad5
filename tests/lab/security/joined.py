"""Hosts of a lab with credentials of their own, as `kvnet worker join` leaves them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lab.lab import Lab
from worker.identity import TOKEN, About, save


async def as_hosts(lab: Lab, start: Callable[[str], Awaitable[object]] | None = None, **more: Any) -> dict[str, str]:
    """Every host's worker, running with a token of role `host`; the texts of the tokens by host."""
    tokens = {}
    for name in lab.hosts:
        tokens[name] = await credited(lab, name, **more)
    for name in lab.hosts:
        await (start or lab.start_worker)(name)
    for name in lab.hosts:
        await lab.until_ready(name)
    return tokens


async def credited(lab: Lab, name: str, **more: Any) -> str:
    """A token for a host, in its state directory; its worker has yet to be started."""
    made = await lab.client.create_token({"name": f"token-{name}", "role": "host", "host": name, **more})
    save(lab.hosts[name].state_dir, About(name, lab.controller_url), {TOKEN: str(made["token"])})
    return str(made["token"])


def refusals(lab: Lab) -> Sequence[str]:
    """What the workers say of being refused something."""
    words = ("may not", "forbidden", "store-refused", "no credential", "takes part in", "unauthenticated")
    lines = [line for host in lab.hosts for line in (lab.directory / f"worker-{host}.log").read_text().splitlines()]
    return [line for line in lines if any(word in line.lower() for word in words)]
