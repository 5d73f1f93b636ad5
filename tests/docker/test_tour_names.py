"""The fourth tour: addresses and names of containers, across hosts."""

from __future__ import annotations

import pytest

from tests.docker.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
SITE = {"hosts": 2}


async def test_a_service_is_found_by_its_alias_from_another_host(site: Site) -> None:
    await site.create("h1", "todo-app")
    await site.until_listed("todo-app")
    await site.run("h1", "quirky_einstein", "todo-app", "--network-alias mysql --network-alias db --hostname mysql-0")
    await site.run("h2", "tools", "todo-app")
    address = await site.address("h1", "quirky_einstein", "todo-app")

    for name in ("mysql", "db", "quirky_einstein", "mysql-0", "mysql.todo-app", "quirky_einstein.todo-app"):
        await site.until_named("h2", "tools", name, [address])
    assert await site.greeting("h2", "tools", "mysql") == "mysql-0"
    back = await site.inside("h2", "tools", f"nslookup {address}")
    assert "quirky_einstein" in back
    assert await site.names("h2", "tools", "nosuch") == set()


async def test_an_alias_of_several_containers_is_all_of_them(site: Site) -> None:
    await site.create("h1", "shop")
    await site.until_listed("shop")
    for number in range(3):
        await site.run("h1", f"web{number}", "shop", "--network-alias web")
    await site.run("h2", "client", "shop")
    addresses = [await site.address("h1", f"web{number}", "shop") for number in range(3)]

    await site.until_named("h2", "client", "web", addresses)
    await site.docker("h1", "rm -f web1")
    await site.until_named("h2", "client", "web", [addresses[0], addresses[2]])


async def test_only_names_of_the_networks_that_the_asker_is_on(site: Site) -> None:
    await site.create("h1", "left")
    await site.create("h1", "right")
    await site.until_listed("right")
    await site.run("h1", "ann", "left", "--network-alias db")
    await site.run("h1", "bob", "right", "--network-alias db")
    await site.run("h2", "asker", "left")
    in_left, in_right = await site.address("h1", "ann", "left"), await site.address("h1", "bob", "right")

    await site.until_named("h2", "asker", "db", [in_left])
    assert await site.names("h2", "asker", "bob") == set()

    await site.docker("h2", "network connect right asker")
    await site.until_named("h2", "asker", "db", [in_left, in_right])
    await site.until_named("h2", "asker", "db.right", [in_right])
    await site.docker("h2", "network disconnect left asker")
    await site.until_named("h2", "asker", "db", [in_right])


async def test_connecting_with_an_alias_and_renaming(site: Site) -> None:
    await site.create("h1", "net")
    await site.until_listed("net")
    await site.run("h2", "asker", "net")
    await site.run("h1", "late", "none")
    await site.docker("h1", "network disconnect none late")
    await site.docker("h1", "network connect --alias cache net late")
    address = await site.address("h1", "late", "net")
    await site.until_named("h2", "asker", "cache", [address])

    await site.docker("h1", "rename late early")
    await site.until_named("h2", "asker", "early", [address])
    await site.until_named("h2", "asker", "late", [])
    await site.until_named("h2", "asker", "cache", [address])


async def test_internal_networks_have_names_too(site: Site) -> None:
    await site.create("h1", "vault", "--internal")
    await site.until_listed("vault")
    await site.run("h1", "ann", "vault")
    await site.run("h2", "bob", "vault")
    await site.until_reaches("h2", "bob", "ann")


async def test_a_container_keeps_its_address_over_a_restart_when_it_was_given(site: Site) -> None:
    await site.create("h1", "net", "--subnet 10.86.0.0/24")
    await site.until_listed("net")
    await site.run("h2", "asker", "net")
    await site.run("h1", "fixed", "net", "--ip 10.86.0.9 --mac-address 02:42:0a:56:00:99")

    await site.docker("h1", "restart fixed")

    assert await site.address("h1", "fixed", "net") == "10.86.0.9"
    assert "02:42:0a:56:00:99" in await site.inside("h1", "fixed", "cat /sys/class/net/eth0/address")
    await site.until_reaches("h2", "asker", "fixed")
