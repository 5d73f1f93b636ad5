"""Planning alone, without a kernel: what a pass over a large overlay costs, and what one more endpoint does.

The dumped state is a copy whose objects are equal and not the same, as those of a real dump are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from bench.figures import Figure
from datapath.desired import Attachment, HostView, Memo, desired
from datapath.objects import HostState
from datapath.plan import plan
from kvnet.model import Driver, Endpoint, Host, Network, Subnet

HOSTS = 20
ROUNDS = 7
NETWORK = "0" * 12


def figures() -> Iterator[Figure]:
    view = _view(6667)
    memo = Memo()
    wanted = desired(view, memo=memo)
    dumped = _copied(wanted)
    entries = len(wanted.vteps) + len(wanted.ports) + len(wanted.neighbours)
    cold = _best_ms(lambda: desired(view))
    warm = _best_ms(lambda: desired(view, memo=memo))
    compare = _best_ms(lambda: plan(wanted, dumped))
    details = {"entries": entries, "desired_ms": cold, "desired_with_memo_ms": warm, "plan_ms": compare}
    yield Figure("planning.no_op_of_20000_entries", cold + compare, "ms", at_most=60, details=details)
    for remotes in (1_000, 10_000):
        yield _one_more(remotes)


def _one_more(remotes: int) -> Figure:
    """From a changed mirror to the operations, against the last expected state."""
    view, memo = _view(remotes), Memo()
    before = desired(view, NETWORK, memo)
    endpoints = dict(view.endpoints[NETWORK])
    endpoints["new"] = _endpoint(remotes + 1, "h1")
    grown = replace(view, endpoints={NETWORK: endpoints})
    after = desired(grown, NETWORK, memo)
    details = {
        "desired_ms": _best_ms(lambda: desired(grown, NETWORK, memo)),
        "plan_ms": _best_ms(lambda: plan(after, before)),
        "operations": len(plan(after, before).operations),
    }
    spent = details["desired_ms"] + details["plan_ms"]
    return Figure(f"planning.one_more_of_{remotes}", spent, "ms", details=details)


def _view(remotes: int) -> HostView:
    """One IPv4 overlay with one endpoint here and `remotes` on the other hosts."""
    hosts = {f"h{i}": Host(f"h{i}", ip_address(f"192.168.0.{i + 1}"), 1500) for i in range(HOSTS)}
    subnet = Subnet(ip_network("10.0.0.0/16"), ip_address("10.0.0.1"))
    network = Network(NETWORK, "large", Driver.OVERLAY, (subnet,), 0.0, vni=1 << 20)
    endpoints = [_endpoint(0, "h0"), *(_endpoint(i, f"h{1 + i % (HOSTS - 1)}") for i in range(1, remotes + 1))]
    attachments = {endpoints[0].id: Attachment(endpoints[0].id, "/run/netns/c0", "eth0")}
    return HostView("h0", hosts, {NETWORK: network}, {NETWORK: {e.id: e for e in endpoints}}, attachments)


def _endpoint(number: int, host: str) -> Endpoint:
    address = ip_address("10.0.0.2") + number
    mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
    return Endpoint(f"e{number}", NETWORK, host, f"e{number}", (address,), mac, 0.0)


def _copied(state: HostState) -> HostState:
    def copies(entries: frozenset[Any]) -> frozenset[Any]:
        return frozenset(type(entry)(*map(_copy, entry)) for entry in entries)

    return replace(state, vteps=copies(state.vteps), ports=copies(state.ports), neighbours=copies(state.neighbours))


def _copy(value: str | bytes) -> str | bytes:
    return bytes(bytearray(value)) if isinstance(value, bytes) else "".join(list(value))


def _best_ms(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return round(best * 1000, 3)
