"""A worker killed at any point leaves nothing that the next one does not put right in one pass."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from datapath.desired import desired
from datapath.objects import HostState
from datapath.plan import plan
from kvnet.model import Host
from tests.lab.eye import everything, look
from tests.lab.kernel.bed import Bed, made, network, opened
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

HOST = "h1"
PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.lab.kernel.test_killed import wanted
from datapath.plan import plan
from worker.kernel.linux import LinuxKernel

async def main(netns, workloads):
    kernel = await LinuxKernel.open(netns=netns)
    for operation in plan(wanted([Path(w) for w in workloads]), await kernel.read()).operations:
        print(await kernel.apply([operation]), flush=True)
        sys.stdin.readline()
    await kernel.close()

asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


def wanted(workloads: list[Path]) -> HostState:
    """Two networks with two local and some remote endpoints each."""
    hosts = {name: Host(name, ip_address(f"198.18.0.{number}"), 1500) for number, name in enumerate((HOST, "h2"), 1)}
    bed = Bed({}, {}, hosts, workloads={path.name: path for path in workloads})
    for number in (1, 2):
        for last, path in enumerate(workloads, 2):
            bed.add(network(number), path.name, HOST, last)
        for last in range(10, 14):
            bed.workloads[f"remote{last}"] = Path()
            bed.add(network(number), f"remote{last}", "h2", last)
    return desired(bed.view(HOST))


async def operations_in_all(kernel: LinuxKernel, state: HostState) -> int:
    return len(plan(state, await kernel.read()).operations)


@pytest.mark.parametrize("seed", range(8))
async def test_the_next_worker_converges_in_one_pass(seed: int) -> None:
    async with AsyncExitStack() as stack:
        host = made(stack, "killed")
        workloads = [made(stack, f"victim{number}") for number in (1, 2)]
        kernel = await opened(stack, host)
        state = wanted(workloads)
        total = await operations_in_all(kernel, state)
        point = random.Random(seed).randrange(1, total)
        run_until(point, host, workloads)

        rest = plan(state, await kernel.read())
        # The one after `point` may be under way when the process dies.
        assert rest.operations or point + 1 >= total, f"killed after {point} of {total} operations"
        assert not rest.conflicts
        assert await kernel.apply(rest.operations) == []

        assert plan(state, await kernel.read()).operations == ()
        assert {"eth0", "eth1"} <= everything(workloads[0]).links.keys()
        assert await kernel.apply(plan(HostState(), await kernel.read()).operations) == []
        assert not look(host).links


def run_until(point: int, host: Path, workloads: list[Path]) -> None:
    """Start a worker's pass in a process of its own and kill it after that many operations."""
    command = [sys.executable, "-c", PROGRAM, str(host), *map(str, workloads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(point):
            assert child.stdout.readline() == "[]\n"
            child.stdin.write("\n")
        child.send_signal(signal.SIGKILL)
