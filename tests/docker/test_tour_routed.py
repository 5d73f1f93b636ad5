"""The sixth tour: a range per host and routes between them instead of tunnels, claimed and kept by kvnet."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from tests.docker.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
SITE = {"hosts": 2, "outside": True}


async def test_every_host_has_a_range_of_its_own_and_routes_to_the_others(site: Site) -> None:
    await site.create("h1", "ranges", "-o driver=routed -o block_prefix_length=24 --subnet 10.88.0.0/16")
    await site.until_listed("ranges")
    addresses = {}
    for host in ("h1", "h2"):
        for number in range(2):
            await site.run(host, f"{host}-{number}", "ranges", f"--hostname {host}-{number}")
            addresses[host, number] = ip_address(await site.address(host, f"{host}-{number}", "ranges"))

    blocks = {host: ip_network((int(addresses[host, 0]) & 0xFFFFFF00, 24)) for host in ("h1", "h2")}
    assert blocks["h1"] != blocks["h2"]
    for host in ("h1", "h2"):
        assert addresses[host, 1] in blocks[host]
    await site.until_reaches("h1", "h1-0", str(addresses["h2", 0]))
    await site.until_reaches("h2", "h2-1", "h1-1")
    assert await site.reaches("h1", "h1-0", str(addresses["h1", 1]))
    # No tunnel, and although Docker's policy for forwarded packets is DROP.
    assert not any(name.startswith("kvx") for name in site.kernel("h1") | site.kernel("h2"))
    assert await site.page("h1", str(addresses["h2", 0]), 8080) == "h2-0", "hosts reach them too"
