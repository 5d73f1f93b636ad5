"""A real firewalld: what it closes is told, and its two settings open it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.coexistence.conftest import Shared, kept
from tests.lab.coexistence.programs import firewalld, run, until
from worker.kernel.firewall import find_nft

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

TRUSTED = '<?xml version="1.0"?>\n<zone target="ACCEPT"><short>Trusted</short><interface name="kv+"/></zone>\n'


def configured(folder: Path, *, is_trusting: bool) -> Path:
    (folder / "zones").mkdir(parents=True)
    (folder / "firewalld.conf").write_text("DefaultZone=public\nFirewallBackend=nftables\nCleanupOnExit=yes\n")
    if is_trusting:
        (folder / "zones" / "trusted.xml").write_text(TRUSTED)
    return folder


async def test_a_wall_of_firewalld_is_told_and_its_settings_open_it(shared: Shared, tmp_path: Path) -> None:
    def has_rules() -> bool:
        tables = run(shared.netns, find_nft(), "list", "tables")
        return "firewalld" in tables and "reject" in run(shared.netns, find_nft(), "list", "table", "inet", "firewalld")

    await shared.bed.converge("h1")
    kernel = shared.bed.kernels["h1"]
    async with firewalld(shared.netns, tmp_path, configured(tmp_path / "closed", is_trusting=False)):
        await until(has_rules, "firewalld has made its rules")
        assert (await kernel.read()).walls == {"inet firewalld filter_FORWARD"}
        assert (await shared.paths())["out"] is False

    assert (await kernel.read()).walls == frozenset()
    async with firewalld(shared.netns, tmp_path, configured(tmp_path / "open", is_trusting=True)), kept(shared):
        await until(has_rules, "firewalld has made its rules")
        await shared.until_all_pass(3.0)
        assert (await kernel.read()).walls == frozenset()
