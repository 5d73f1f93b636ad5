"""What the doctor says of real firewalls, iptables in both flavours and firewalld, and that doing so helps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab import namespaces
from tests.lab.coexistence.programs import FLAVOURS, firewalld, run, until
from tests.lab.coexistence.test_firewalld import configured
from worker.doctor import gather_host
from worker.doctor.checks_firewall import check_firewall
from worker.doctor.report import Check, Status
from worker.kernel.firewall import find_nft

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

SOURCE, OWN = "198.18.0.2", "198.18.0.1"


@pytest.fixture
def netns() -> Iterator[Path]:
    path = namespaces.create("host")
    yield path
    namespaces.destroy(path)


@pytest.fixture
def path(wrappers: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{wrappers / 'bin'}:{os.environ['PATH']}")
    return wrappers / "bin"


def judged(netns: Path) -> dict[str, Check]:
    facts = namespaces.call(netns, lambda: gather_host.firewall("eth0", os.environ))
    assert facts.chains is not None, facts.problem
    facts = replace(facts, has_networks=True, has_worker=True)
    return {check.id: check for check in check_firewall(facts, 4, SOURCE, OWN)}


def is_all_well(netns: Path) -> bool:
    return {check.status for check in judged(netns).values()} == {Status.OK}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_chains_of_iptables_are_walked_and_opened_by_what_is_said(netns: Path, path: Path, flavour: str) -> None:
    iptables = path / f"iptables-{flavour}"
    assert {check.status for check in judged(netns).values()} == {Status.OK}
    run(netns, iptables, "-P", "FORWARD", "DROP")
    run(netns, iptables, "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
    run(netns, iptables, "-A", "INPUT", "-p", "udp", "-m", "multiport", "--dports", "53,4789", "-j", "REJECT")

    told = judged(netns)

    assert told["firewall.tunnels_in"].status is Status.FAIL
    assert "--dports 53,4789 -j REJECT" in told["firewall.tunnels_in"].found
    assert told["firewall.tunnels_out"].status is Status.OK
    assert told["firewall.forward"].status is Status.FAIL
    assert "FORWARD: policy drop" in told["firewall.forward"].found
    for id_ in ("firewall.tunnels_in", "firewall.forward"):
        program, *arguments = told[id_].fix.split()
        run(netns, path / (program if flavour in program else f"{program}-{flavour}"), *arguments)
    assert {check.status for check in judged(netns).values()} == {Status.OK}, "what it said helped"


def test_a_chain_of_nftables_in_a_table_of_iptables_is_seen(netns: Path, path: Path) -> None:
    run(netns, path / "iptables-nft", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
    run(netns, find_nft(), "add chain ip filter site { type filter hook input priority 5; }")
    run(netns, find_nft(), "add rule ip filter site udp dport 4789 drop")

    check = judged(netns)["firewall.tunnels_in"]

    assert check.found == "dropped by ip filter site: udp dport 4789 drop"
    run(netns, find_nft(), *check.fix.split()[1:])
    assert is_all_well(netns)


async def test_firewalld_is_walked_through_all_its_chains(netns: Path, path: Path, tmp_path: Path) -> None:
    def has_rules() -> bool:
        tables = run(netns, find_nft(), "list", "tables")
        return "firewalld" in tables and "reject" in run(netns, find_nft(), "list", "table", "inet", "firewalld")

    async with firewalld(netns, tmp_path, configured(tmp_path / "closed", is_trusting=False)):
        await until(has_rules, "firewalld has made its rules")

        told = judged(netns)

        assert told["firewall.tunnels_in"].status is Status.FAIL
        assert "--add-port=4789/udp" in told["firewall.tunnels_in"].fix
        assert told["firewall.forward"].status is Status.FAIL
        assert "--zone=trusted --add-interface=kv+" in told["firewall.forward"].fix
        assert told["firewall.others"].found.startswith("firewalld")

    folder = configured(tmp_path / "open", is_trusting=True)
    (folder / "zones" / "public.xml").write_text(
        '<?xml version="1.0"?>\n<zone><short>Public</short><port port="4789" protocol="udp"/></zone>\n'
    )
    async with firewalld(netns, tmp_path, folder):
        await until(has_rules, "firewalld has made its rules")
        await until(lambda: is_all_well(netns), "with its two settings nothing is found")
