"""New connections a second through a published port, with 10 and with 10,000 of them on the host: it must be the same.

The driver's own desired state, the planner and the kernel code, between two namespaces on a fabric; the two are
measured in turns, and each change of what is published is one pass of a worker.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path

from bench import inside
from bench.figures import Figure
from datapath.desired import desired
from datapath.objects import HostState
from datapath.plan import plan
from datapath.scopes import whole_scope
from datapath.view import Attachment, HostView
from kvnet.model import Driver, Endpoint, Host, Network, PublishedPort, Subnet
from kvnet.rules import MAX_PORTS as PORTS_EACH
from lab import fabric, namespaces
from worker.kernel.linux import LinuxKernel

FEW, MANY = 10, 10_000
FIRST_PORT = 20_000
SERVED = 8080
PAIRS = 8
SLICE_S = 0.7
FLAT = 0.9  # of the rate with few; what is left for noise
CALLER = Path(__file__).with_name("calls.py")
NETWORK = Network(
    "0000000000bb",
    "bench",
    Driver.BRIDGE,
    (Subnet(ip_network("10.66.0.0/16"), ip_address("10.66.0.1")),),
    0.0,
)


def figures() -> Iterator[Figure]:
    yield from inside.run_inside("bench.publishing")


async def measured() -> AsyncIterator[Figure]:
    async with AsyncExitStack() as stack:
        cables, host, outside, workload = (_namespace(stack, n) for n in ("fabric", "host", "outside", "workload"))
        ports = [fabric.Port(1, host), fabric.Port(2, outside)]
        await fabric.build(await _opened(stack, cables), ports)
        kernel = await _opened(stack, host)
        await _publish(kernel, ports[0], workload, FEW)
        server = stack.enter_context(_started(workload, "serve", str(SERVED)))
        stack.callback(server.kill)
        pairs = []
        for _ in range(PAIRS):
            rates = []
            for count in (FEW, MANY):
                await _publish(kernel, ports[0], workload, count)
                rates.append(await asyncio.to_thread(_rate, outside, str(ports[0].underlay), count))
            pairs.append((rates[0], rates[1]))
    few, many = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(with_many / with_few for with_few, with_many in pairs)
    details = {f"per_second_with_{FEW}": round(few), f"per_second_with_{MANY}": round(many), "pairs": PAIRS}
    yield Figure("new_connections_with_10000_to_10_published", ratio, "ratio", at_least=FLAT, details=details)


async def _publish(kernel: LinuxKernel, port: fabric.Port, workload: Path, count: int) -> None:
    published = tuple(PublishedPort(SERVED, "tcp", FIRST_PORT + number) for number in range(count))
    view = _view(port, workload, published)
    state = await kernel.read(whole_scope(view))
    wanted: HostState = desired(view)
    failures = await kernel.apply(plan(wanted, state).operations)
    assert not failures, failures[0]


def _view(port: fabric.Port, workload: Path, published: Sequence[PublishedPort]) -> HostView:
    """A record holds a bounded number of ports, so there are as many workloads as it takes; the first one serves."""
    endpoints = {}
    for start in range(0, len(published), PORTS_EACH):
        number = start // PORTS_EACH
        address = ip_address("10.66.0.2") + number
        mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        some = tuple(published[start : start + PORTS_EACH])
        endpoints[f"e{number}"] = Endpoint(
            f"e{number}", NETWORK.id, "h1", f"e{number}", (address,), mac, 0.0, ports=some
        )
    attachments = {"e0": Attachment("e0", str(workload), "eth0")}
    hosts = {"h1": Host("h1", port.underlay, 1500)}
    return HostView("h1", hosts, {NETWORK.id: NETWORK}, {NETWORK.id: endpoints}, attachments)


def _rate(netns: Path, address: str, count: int) -> float:
    last = min(FIRST_PORT + count, FIRST_PORT + PORTS_EACH) - 1
    with _started(netns, "call", address, str(FIRST_PORT), str(last), str(SLICE_S)) as calling:
        said, _ = calling.communicate(timeout=SLICE_S + 30)
    return float(said)


def _started(netns: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-S", str(CALLER), *words]
    return namespaces.call(netns, lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True))


def _namespace(stack: AsyncExitStack, name: str) -> Path:
    netns = namespaces.create(name)
    stack.callback(namespaces.destroy, netns)
    return netns


async def _opened(stack: AsyncExitStack, netns: Path) -> LinuxKernel:
    return await stack.enter_async_context(await LinuxKernel.open(netns=str(netns)))


if __name__ == "__main__":
    inside.main(measured)
