"""The way between two containers, hop by hop: their interfaces are Docker's to name and move."""

from __future__ import annotations

from typing import Any

import pytest

from tests.docker.site import Site

pytestmark = pytest.mark.anyio


async def test_the_way_between_two_containers_is_whole_and_ends_where_something_is_wrong(site: Site) -> None:
    first, second = sorted(site.hosts)[:2]
    await site.create(first, "traced", "--subnet 10.61.0.0/24")
    await site.until_listed("traced", second)
    await site.run(first, "one", "traced")
    await site.run(second, "other", "traced")

    async def trace(**more: Any) -> dict[str, Any]:
        return await site.lab.lab.client.trace({"from": "traced/one", "to": "traced/other", **more})

    async def is_whole() -> bool:
        return bool((await trace(protocol="tcp", port=8080))["whole"])

    await site.until(is_whole, "the way is whole")
    closed = await trace(protocol="tcp", port=8081)
    assert closed["finding"]["code"] == "nobody-listens"
