"""What Docker moved into its containers: repaired where it is, and gone with them, on every kind of link."""

from __future__ import annotations

import pytest

from lab.surroundings import LAN, LAN_UPLINK
from tests.docker.site import Site
from tests.lab.eye import by_hand, look

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
SITE = {"hosts": 2, "lan": True}
DNS = "169.254.53.53"


@pytest.mark.parametrize("driver", ["overlay", "bridge", "routed"])
async def test_an_interface_that_is_deleted_by_hand_comes_back_into_its_container(site: Site, driver: str) -> None:
    await site.create("h1", "net", f"-o driver={driver}")
    await site.until_listed("net")
    other = "h1" if driver == "bridge" else "h2"
    await site.run("h1", "ann", "net")
    await site.run(other, "bob", "net", "--hostname bob")
    await site.until_reaches("h1", "ann", "bob")
    gateway = await site.inside("h1", "ann", "ip route show default | cut -d' ' -f3")
    address = await site.address("h1", "ann", "net")
    veth = next(a["interface"] for a in await attachments(site, "h1") if address in a["addresses"])
    assert veth == "eth0"

    delete_halves(site, "h1", keep=1 if driver == "bridge" else 0)

    await site.until_reaches("h1", "ann", await site.address(other, "bob", "net"))
    await site.until_reaches("h1", "ann", "bob")
    assert f"inet {address}/" in await site.inside("h1", "ann", "ip addr show eth0")
    assert await site.inside("h1", "ann", "ip route show default | cut -d' ' -f3") == gateway
    assert DNS in await site.inside("h1", "ann", "ip route")
    assert await site.greeting("h1", "ann", "bob") == "bob"


@pytest.mark.parametrize("mode", ["macvlan", "bridge"])
async def test_containers_on_the_physical_network(site: Site, mode: str) -> None:
    gateway = site.lab.lab.around["lan"].address
    where = f"--subnet {LAN} --gateway {gateway} -o uplink={LAN_UPLINK} -o uplink_mode={mode}"
    await site.create("h1", "lan", f"-o driver=transparent {where}")
    await site.until_listed("lan")
    for round_ in range(3):
        await site.run("h1", "ann", "lan")
        await site.run("h2", "bob", "lan")
        b = await site.address("h2", "bob", "lan")
        await site.until_reaches("h1", "ann", b)
        await site.until_reaches("h1", "ann", str(gateway))
        if round_ == 1:
            await site.docker("h1", "restart -t 0 ann")
            await site.until_reaches("h1", "ann", b)
        if round_ == 2:
            await site.docker("h1", "network disconnect lan ann")
            assert "eth0" not in await site.inside("h1", "ann", "ip link")
            await site.docker("h1", "network connect lan ann")
            await site.until_reaches("h1", "ann", b)
        for host, name in (("h1", "ann"), ("h2", "bob")):
            await site.docker(host, f"rm -f {name}")
        await site.until_kernel_empty()
        for host in site.hosts:
            assert not left_over(site, host)


async def test_behind_a_shim_each_container_asks_its_own_host_for_names(site: Site) -> None:
    """Every host on the wire would answer for the address for names, and would not know the asker."""
    gateway = site.lab.lab.around["lan"].address
    where = f"--subnet {LAN} --gateway {gateway} -o uplink={LAN_UPLINK} -o shim=true"
    await site.create("h1", "lan", f"-o driver=transparent {where}")
    await site.until_listed("lan")
    for host, name in (("h1", "ann"), ("h2", "bob")):
        await site.run(host, name, "lan", f"--network-alias {name}-1")
        underlay = site.hosts[host].host.port.underlay
        assert f"{DNS} via {underlay}" in await site.inside(host, name, "ip route")

    await site.until_named("h1", "ann", "bob-1", [await site.address("h2", "bob", "lan")])
    await site.until_named("h2", "bob", "ann-1", [await site.address("h1", "ann", "lan")])


async def attachments(site: Site, host: str) -> list[dict[str, object]]:
    """When the worker knows what Docker called them."""

    async def are_settled() -> bool:
        found = (await site.hosts[host].host.local.status())["attachments"]
        return bool(found) and all(not str(one["interface"]).startswith("kt") for one in found)

    await site.until(are_settled, "the worker knows where its interfaces are")
    return list((await site.hosts[host].host.local.status())["attachments"])


def delete_halves(site: Site, host: str, *, keep: int) -> None:
    netns = site.hosts[host].host.netns
    indexes = [index for name, index in sorted(look(netns).links.items()) if name.startswith("kve")]
    assert len(indexes) == 1 + keep

    def delete(ip: object) -> None:
        for index in indexes:
            ip.link("del", index=index)  # type: ignore[attr-defined]

    by_hand(netns, delete)


def left_over(site: Site, host: str) -> set[str]:
    def seen(ip: object) -> set[str]:
        return {link.get_attr("IFLA_IFNAME") for link in ip.get_links()}  # type: ignore[attr-defined]

    return {name for name in by_hand(site.hosts[host].host.netns, seen) if name.startswith("kt")}
