"""Our one rule in each FORWARD chain of iptables, and what of other people's chains is told."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from datapath.objects import CloseGate, Gate, OpenGate
from lab import namespaces
from tests.lab.coexistence.programs import FLAVOURS, run
from tests.lab.kernel.bed import nft
from worker.kernel.gates import PROGRAMS
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

GATES = [Gate(flavour, family) for flavour in FLAVOURS for family in (4, 6)]


@pytest.fixture
def netns() -> Iterator[Path]:
    path = namespaces.create("host")
    yield path
    namespaces.destroy(path)


@pytest.fixture
async def kernel(netns: Path, wrappers: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LinuxKernel]:
    monkeypatch.setenv("PATH", f"{wrappers / 'bin'}:{os.environ['PATH']}")
    async with await LinuxKernel.open(netns=str(netns)) as made:
        yield made


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: f"{gate.flavour}-ipv{gate.family}")
async def test_a_gate_is_found_opened_once_and_closed(
    kernel: LinuxKernel, netns: Path, wrappers: Path, gate: Gate
) -> None:
    program = wrappers / "bin" / PROGRAMS[gate]
    range_ = "10.9.0.0/16" if gate.family == 4 else "fd09::/64"
    run(netns, program, "-A", "FORWARD", "-s", range_, "-m", "mark", "--mark", "0x80000/0x80000", "-j", "ACCEPT")
    run(netns, program, "-A", "FORWARD", "-m", "comment", "--comment", "kvnet", "-j", "DROP")
    before = run(netns, program, "-S")
    assert (await kernel.read()).gates == {gate: False}, "neither of the two is the rule"

    for _ in range(2):
        assert await kernel.apply([OpenGate(gate)]) == []
        assert (await kernel.read()).gates == {gate: True}
    assert run(netns, program, "-S").count("ACCEPT\n") == before.count("ACCEPT\n") + 1

    for _ in range(2):
        assert await kernel.apply([CloseGate(gate)]) == []
        assert (await kernel.read()).gates == {gate: False}
    assert run(netns, program, "-S") == before


async def test_a_gate_that_is_not_there_is_not_made(kernel: LinuxKernel) -> None:
    assert await kernel.apply([OpenGate(gate) for gate in GATES]) == []

    assert (await kernel.read()).gates == {}


CHAIN = "chain f {{\n type filter hook forward priority 0; policy {};\n {}\n }}"
CHAINS = {
    "drops what it does not know": (CHAIN.format("drop", ""), True),
    "ends in a reject": (CHAIN.format("accept", "ct state invalid drop\n counter reject"), True),
    "ends in a drop": (CHAIN.format("accept", "tcp dport 1 accept\n drop"), True),
    "drops something": (CHAIN.format("accept", "tcp dport 1 drop"), False),
    "knows our devices": (CHAIN.format("drop", 'iifname "kv*" accept'), False),
    "knows our mark": (CHAIN.format("drop", "meta mark & 0x80000 == 0x80000 accept"), False),
    "is on another hook": (CHAIN.format("drop", "").replace("forward", "input"), False),
}


@pytest.mark.parametrize("family", ["inet", "ip", "ip6"])
@pytest.mark.parametrize("chain", CHAINS)
async def test_a_chain_that_we_cannot_open_is_told(kernel: LinuxKernel, netns: Path, chain: str, family: str) -> None:
    text, is_wall = CHAINS[chain]
    nft(netns, f"table {family} mine {{\n {text}\n}}")

    assert (await kernel.read()).walls == (frozenset({f"{family} mine f"}) if is_wall else frozenset())
