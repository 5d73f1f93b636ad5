"""`kvnet demo`: the product on one machine, in a minute. The work is done by `lab.demo`."""

from __future__ import annotations

import asyncio
import sys

import click


@click.command()
@click.option("--hosts", default=3, show_default=True, help="How many hosts to make (2 to 50).")
@click.option("--store", help="A store of yours to use instead of an embedded one that is thrown away.")
@click.option("--once", is_flag=True, help="Exit after the report instead of staying up until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def demo(hosts: int, store: str | None, once: bool, as_json: bool) -> None:
    """Build a small cluster on this machine and show workloads on different hosts talking.

    Hosts are network namespaces; controller, workers, store and kernel are the real ones. Needs no root where the
    kernel allows unprivileged user namespaces, never touches this machine's own network, and leaves nothing behind.
    """
    from lab.demo import run

    sys.exit(asyncio.run(run(hosts=hosts, store=store, once=once, as_json=as_json)))
