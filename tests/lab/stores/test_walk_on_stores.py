"""The walk of a first day on real stores of three servers, with the leading one killed in the middle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.stores.site import on_its_own, open_site
from tests.lab.walk import walk
from tests.servers.binaries import KINDS, Kind

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]


@pytest.mark.parametrize("kind", [on_its_own(kind) for kind in KINDS])
async def test_the_walk_of_a_first_day_with_the_leader_killed_in_the_middle(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Six servers and four of ours share the machine; a fail-over may be under way still.
    monkeypatch.setattr("tests.lab.walk.WITHIN_SECONDS", 4.0)
    async with open_site(kind, tmp_path) as site:

        async def lose_the_leader() -> None:
            leader = await site.store.leader()
            await site.store.members[leader].kill()
            assert await site.store.leader() != leader
            await site.until_attaching_works()

        await walk(site.lab, in_the_middle=lose_the_leader)
