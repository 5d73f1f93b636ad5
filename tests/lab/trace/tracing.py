"""A trace over a bed of hosts: no controller, no worker; each host is looked at as a worker would look."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from datapath.trace.asking import question
from datapath.trace.case import Case, End, Flow, Standing
from datapath.trace.seen import Question, SeenNetwork, Sight, from_plain, to_plain
from datapath.trace.trace import Trace, trace
from kvnet.model import Endpoint
from lab import namespaces
from tests.lab.kernel.bed import Bed
from worker.kernel.scene import Place, look
from worker.looking import sight_of


def case_of(bed: Bed, a: Endpoint, b: Endpoint, *, family: int = 4, flow: Flow | None = None) -> Case:
    ends = []
    for endpoint in (a, b):
        address = next(address for address in endpoint.addresses if address.version == family)
        ends.append(End(endpoint, bed.networks[endpoint.network], address))
    carried = {
        host: frozenset(id_ for id_, es in bed.endpoints.items() if any(e.host == host for e in es.values()))
        for host in bed.hosts
    }
    standing = {host: Standing(bed.hosts[host]) for host in {a.host, b.host}}
    b_end = ends[0] if a is b else ends[1]
    return Case(
        ends[0], b_end, flow or Flow(), bed.hosts, standing, bed.networks, bed.endpoints, bed.blocks, carried=carried
    )


async def sight(bed: Bed, case: Case, host: str) -> Sight:
    asked = from_plain(Question, to_plain(question(case, host)))
    attached = bed.attachments.get(host, {})
    places = {id_: Place(at.netns, at.interface, order=at.order) for id_, at in attached.items()}

    def look_there(asked: Question, places: Mapping[str, Place], with_own: bool) -> Sight:
        return look(asked, places, netns=str(bed.netns[host]), with_own=with_own)

    seen = await sight_of(bed.kernels[host], asked, places, look_there)
    up_to_date = tuple(SeenNetwork(network.id, 0, 0) for network in case.own_networks)
    return from_plain(Sight, to_plain(replace(seen, host=host, networks=up_to_date)))


async def traced(
    bed: Bed, a: Endpoint, b: Endpoint, *, family: int = 4, flow: Flow | None = None, blind: Collection[str] = ()
) -> Trace:
    case = case_of(bed, a, b, family=family, flow=flow)
    sights = {host: await sight(bed, case, host) for host in case.own_hosts if host not in blind}
    return trace(case, sights)


def shown(found: Trace) -> str:
    """Every hop, for the message of a failed test."""
    lines = []
    for number, hop in enumerate(found.hops, 1):
        lines.append(f"{number:2} {hop.host:3} {hop.kind:16} {hop.name:44} {hop.verdict:8} {hop.wanted} | {hop.found}")
        lines += [f"      {d.weight} {d.code}: {d.wanted} -> {d.found}: {d.reason}. {d.fix}" for d in hop.differences]
    return "\n".join(lines)


async def command(netns: Any, text: str) -> None:
    """As an administrator would, in that namespace."""
    run = partial(subprocess.run, text.split(), capture_output=True, text=True, timeout=10, check=False)
    done = await asyncio.to_thread(namespaces.call, netns, run)
    assert done.returncode == 0, f"{text}: {done.stderr}"
