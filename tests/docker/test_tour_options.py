"""The third and fifth tour: the options of `network create`, what they mean, and how users see what is there."""

from __future__ import annotations

import pytest

from tests.docker.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
SITE = {"hosts": 2, "outside": True}


async def test_subnet_gateway_range_and_auxiliary_addresses(site: Site) -> None:
    await site.create(
        "h1",
        "planned",
        "--subnet 10.80.0.0/24 --gateway 10.80.0.254 --ip-range 10.80.0.64/28 --aux-address printer=10.80.0.65",
    )
    await site.until_listed("planned")
    addresses = []
    for number, host in enumerate(("h1", "h2", "h1")):
        await site.run(host, f"c{number}", "planned")
        addresses.append(await site.address(host, f"c{number}", "planned"))

    assert all(64 <= int(a.rsplit(".", 1)[1]) < 80 for a in addresses), addresses
    assert len(set(addresses)) == 3
    assert "10.80.0.65" not in addresses
    assert "via 10.80.0.254" in await site.inside("h2", "c1", "ip route show default")
    assert await site.reaches("h2", "c1", "10.80.0.254"), "the gateway is on every host"
    await site.run("h2", "fixed", "planned", "--ip 10.80.0.7")  # outside the range, inside the subnet: as in Docker
    await site.until_reaches("h1", "c0", "10.80.0.7")
    inspected = await site.docker("h2", 'network inspect -f "{{json .IPAM.Config}}" planned')
    for word in ("10.80.0.0/24", "10.80.0.254", "10.80.0.64/28", "10.80.0.65"):
        assert word in inspected


async def test_overlapping_subnets_are_refused_with_the_name_of_the_other(site: Site) -> None:
    await site.create("h1", "first", "--subnet 10.81.0.0/16")
    await site.until_listed("first")

    for host in ("h1", "h2"):
        refused = await site.refusal(host, "network create -d kvnet --ipam-driver kvnet --subnet 10.81.5.0/24 second")
        assert "10.81.0.0/16" in refused
        assert "first" in refused
    for host in ("h1", "h2"):
        refused = await site.refusal(host, "network create -d kvnet --ipam-driver kvnet --subnet 10.81.0.0/16 second")
        assert "first" in refused
    refused = await site.refusal("h2", "network create -d kvnet --ipam-driver kvnet --subnet 172.17.0.0/24 of-docker0")
    assert "172.17.0.0/16" in refused, "what hosts use is not taken either"
    assert set(await site.listed("h2")) == {"first"}


async def test_subnets_that_are_left_out_never_overlap(site: Site) -> None:
    for number in range(4):
        await site.create("h1" if number % 2 else "h2", f"auto{number}")
        await site.until_listed(f"auto{number}")
    subnets = {str((await site.network(f"auto{n}"))["subnets"][0]["cidr"]) for n in range(4)}
    assert len(subnets) == 4
    assert (await site.docker("h1", "network inspect auto3")).count(
        str((await site.network("auto3"))["subnets"][0]["cidr"])
    ) == 1


async def test_both_address_families(site: Site) -> None:
    await site.create("h1", "dual", "--ipv6 --subnet 10.82.0.0/24 --subnet fd00:82::/64")
    await site.until_listed("dual")
    await site.run("h1", "ann", "dual", "--ip 10.82.0.20 --ip6 fd00:82::20")
    await site.run("h2", "bob", "dual")

    assert await site.address("h1", "ann", "dual", six=True) == "fd00:82::20"
    await site.until_reaches("h2", "bob", "fd00:82::20", six=True)
    await site.until_reaches("h2", "bob", "10.82.0.20")
    await site.until_named("h2", "bob", "ann", ["10.82.0.20", "fd00:82::20"])
    other = await site.address("h2", "bob", "dual", six=True)
    await site.until_reaches("h1", "ann", other, six=True)


async def test_an_internal_network_has_no_way_out(site: Site) -> None:
    outside = str(site.lab.lab.around["outside"].address)
    await site.create("h1", "vault", "--internal")
    await site.create("h1", "open")
    await site.until_listed("vault")
    await site.run("h1", "ann", "vault")
    await site.run("h2", "bob", "vault")
    await site.run("h1", "cat", "open")

    await site.until_reaches("h1", "ann", "bob")
    assert "default" not in await site.inside("h1", "ann", "ip route")
    assert "Network is unreachable" in await site.refusal("h1", f"exec ann ping -c 1 -w 1 {outside}")
    assert not await site.reaches("h1", "cat", await site.address("h1", "ann", "vault"))
    assert await site.gets_out("h1", "cat")


async def test_labels_are_kept_on_every_host_and_filter(site: Site) -> None:
    await site.create("h1", "team-a", "--label team=a --label stage=test")
    await site.create("h2", "team-b", "--label team=b")
    await site.until_listed("team-a")
    await site.until_listed("team-b")

    for host in ("h1", "h2"):
        listed = await site.docker(host, 'network ls --filter label=team=a --format "{{.Name}}"')
        assert listed.split() == ["team-a"]
    assert (await site.network("team-a"))["labels"]["stage"] == "test"


async def test_containers_of_a_network_without_icc_are_alone(site: Site) -> None:
    await site.create("h1", "lonely", "-o com.docker.network.bridge.enable_icc=false")
    await site.until_listed("lonely")
    await site.run("h1", "ann", "lonely")
    await site.run("h1", "bob", "lonely")
    await site.run("h2", "cat", "lonely")

    for target in (await site.address("h1", "bob", "lonely"), await site.address("h2", "cat", "lonely")):
        assert not await site.reaches("h1", "ann", target)
    assert await site.gets_out("h1", "ann")


async def test_mtu_and_names_of_interfaces(site: Site) -> None:
    await site.create(
        "h1",
        "small",
        "-o com.docker.network.driver.mtu=1300 -o com.docker.network.container_iface_prefix=net",
    )
    await site.until_listed("small")
    for host in ("h1", "h2"):
        await site.run(host, f"on-{host}", "small")
        assert "mtu 1300" in await site.inside(host, f"on-{host}", "ip link show net0")


async def test_unknown_words_are_refused_and_change_nothing(site: Site) -> None:
    for options, expected in (
        ("-o driver=nosuch", "overlay"),
        ("-o drivr=bridge", "driver"),
        ("-o mtu=small", "mtu"),
        ("--subnet 10.83.0.0/24 --gateway 10.84.0.1", "10.84.0.1"),
        ("--ip-range 10.83.0.0/24", "subnet"),
        ("-o egress=sideways", "gwbridge"),
    ):
        refused = await site.refusal("h1", f"network create -d kvnet --ipam-driver kvnet {options} bad")
        assert expected in refused, refused
    refused = await site.refusal("h1", "network create -d kvnet half")
    assert "--ipam-driver kvnet" in refused
    assert await site.listed("h1") == {}
    assert [n["name"] async for n in site.lab.lab.client.networks()] == []


async def test_what_is_taken_can_be_seen_by_hand_and_unused_networks_go_with_prune(site: Site) -> None:
    await site.create("h1", "used", "--subnet 10.85.1.0/24")
    await site.create("h1", "unused", "--subnet 10.85.2.0/24")
    await site.until_listed("used")
    await site.run("h2", "ann", "used")
    assert '"Subnet": "10.85.1.0/24"' in await site.docker("h1", "network inspect used")

    await site.docker("h1", "network prune -f")

    await site.until_unlisted("unused")
    await site.until_listed("used")  # it is in use on the other host: it comes back
    await site.until_reaches("h2", "ann", "10.85.1.1")
    await site.run("h1", "bob", "used")
    await site.until_reaches("h1", "bob", "ann")
