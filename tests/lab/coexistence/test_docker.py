"""A real dockerd on the same host: whichever of the two starts first, and whatever happens to its rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapath.objects import Gate
from lab import namespaces
from tests.lab.coexistence.conftest import Shared, kept
from tests.lab.coexistence.programs import FLAVOURS, dockerd, run
from worker.kernel.firewall import find_nft
from worker.kernel.sysctls import write_sysctl

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

REPAIRED_SECONDS = 3.0  # the repair is due within one; the tries of the three paths take their time too
OURS = "-A FORWARD -m mark --mark 0x80000/0x80000 -m comment --comment kvnet -j ACCEPT"


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["1", "0"], ids=["bridged-frames-filtered", "bridged-frames-not-filtered"])
def filtering(request: pytest.FixtureRequest, shared: Shared) -> str:
    value = str(request.param)
    namespaces.call(shared.netns, lambda: write_sysctl("net/bridge/bridge-nf-call-iptables", value))
    return value


def rules(shared: Shared, wrappers: Path, flavour: str) -> list[str]:
    return run(shared.netns, wrappers / "bin" / f"iptables-{flavour}", "-S").splitlines()


@pytest.mark.usefixtures("filtering")
async def test_docker_first(shared: Shared, wrappers: Path, flavour: str, tmp_path: Path) -> None:
    """It switches forwarding on itself, and then sets its policy to DROP."""
    async with dockerd(shared.netns, wrappers, flavour, tmp_path / "docker"):
        before = rules(shared, wrappers, flavour)
        assert "-P FORWARD DROP" in before

        async with kept(shared):
            await shared.until_all_pass(REPAIRED_SECONDS)

            after = rules(shared, wrappers, flavour)
            assert after.count(OURS) == 1
            assert [rule for rule in after if rule != OURS] == before, "every other rule is as it was"

            run(shared.netns, wrappers / "bin" / f"iptables-{flavour}", "-F")
            await shared.until_all_pass(REPAIRED_SECONDS)
            assert rules(shared, wrappers, flavour).count(OURS) == 1

        # Nothing of ours is left to forward: the rule goes again.
        shared.bed.endpoints.clear()
        await shared.bed.converge("h1")
        assert OURS not in rules(shared, wrappers, flavour)


@pytest.mark.usefixtures("filtering")
async def test_docker_second_and_restarted(shared: Shared, wrappers: Path, flavour: str, tmp_path: Path) -> None:
    async with kept(shared):
        await shared.until_all_pass(REPAIRED_SECONDS)
        for _ in range(2):
            async with dockerd(shared.netns, wrappers, flavour, tmp_path / "docker"):
                run(shared.netns, wrappers / "bin" / f"iptables-{flavour}", "-P", "FORWARD", "DROP")
                await shared.until_all_pass(REPAIRED_SECONDS)
                assert rules(shared, wrappers, flavour).count(OURS) == 1
        assert shared.failures == []


async def test_a_host_without_iptables_gets_no_table_of_it(shared: Shared, wrappers: Path) -> None:
    await shared.bed.converge("h1")

    state = await shared.bed.kernels["h1"].read()
    assert state.gates == {}
    assert run(shared.netns, find_nft(), "list", "tables").split() == [
        "table",
        "inet",
        "kvnet",
        "table",
        "bridge",
        "kvnet",
    ]


async def test_without_the_program_the_failure_says_what_to_install(
    shared: Shared, wrappers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(shared.netns, wrappers / "bin" / "iptables-nft", "-P", "FORWARD", "DROP")
    monkeypatch.setattr("worker.kernel.gates.PROGRAMS", {Gate("nft", 4): "no-such-iptables"})

    (failure,) = await shared.bed.converge("h1")

    assert failure.code == "forward-blocked"
    assert "Install the package iptables" in failure.reason
