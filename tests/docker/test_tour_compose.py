"""The eighth tour: docker-compose, with networks of a project's own and with one that projects on two hosts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docker.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
SITE = {"hosts": 2}

OWN = """
version: "2.4"
services:
  web:
    image: busybox
    networks: {front: {aliases: [www]}, back: {}}
  db:
    image: busybox
    networks: [back]
networks:
  front: {driver: kvnet, ipam: {driver: kvnet}}
  back: {driver: kvnet, internal: true, ipam: {driver: kvnet}, labels: {tier: back}}
"""
SHARED = """
version: "2.4"
services:
  NAME:
    image: busybox
    networks: {shop: {aliases: [NAME-alias]}}
networks:
  shop: {external: true}
"""
SAME = """
version: "2.4"
services:
  NAME:
    image: busybox
    networks: [ours]
networks:
  ours: {name: ours, driver: kvnet, ipam: {driver: kvnet}, driver_opts: {mtu: "1400"}}
"""


def project(folder: Path, name: str, text: str) -> Path:
    """The project is called as its folder."""
    made = folder / name
    made.mkdir()
    (made / "docker-compose.yml").write_text(text)
    return made


async def test_a_project_with_its_own_networks(site: Site, tmp_path: Path) -> None:
    app = project(tmp_path, "app", OWN)

    await site.compose("h1", app, "up -d")

    for network in ("app_front", "app_back"):
        await site.until_listed(network)
    assert await site.greeting("h1", "app_web_1", "db")
    assert await site.reaches("h1", "app_db_1", "web")
    await site.compose("h1", app, "up -d --scale db=3")
    addresses = [await site.address("h1", f"app_db_{n}", "app_back") for n in (1, 2, 3)]
    await site.until_named("h1", "app_web_1", "db", addresses)
    await site.compose("h1", app, "down -t 1")
    await site.until_unlisted("app_front")
    await site.until_unlisted("app_back")


async def test_two_projects_on_two_hosts_share_an_external_network(site: Site, tmp_path: Path) -> None:
    await site.create("h1", "shop", "--attachable")
    await site.until_listed("shop")
    front, back = (project(tmp_path, name, SHARED.replace("NAME", name)) for name in ("front", "back"))
    await site.compose("h1", front, "up -d")
    await site.compose("h2", back, "up -d --scale back=2")

    addresses = [await site.address("h2", f"back_back_{n}", "shop") for n in (1, 2)]
    for name in ("back", "back-alias"):
        await site.until_named("h1", "front_front_1", name, addresses)
    await site.until_named("h1", "front_front_1", "back_back_2", [addresses[1]])
    await site.until_reaches("h2", "back_back_1", "front")
    await site.compose("h2", back, "down -t 1")
    await site.until_named("h1", "front_front_1", "back", [])
    await site.compose("h1", front, "down -t 1")
    assert "shop" in await site.listed("h1"), "external: compose leaves it"


async def test_the_same_network_in_files_on_two_hosts(site: Site, tmp_path: Path) -> None:
    one, two = (project(tmp_path, name, SAME.replace("NAME", name)) for name in ("one", "two"))
    await site.compose("h1", one, "up -d")
    await site.until_listed("ours")
    await site.compose("h2", two, "up -d")  # finds it as it would have made it
    await site.until_reaches("h1", "one_one_1", "two")
    await site.until_reaches("h2", "two_two_1", "one")

    await site.compose("h1", one, "down -t 1")
    await site.until_listed("ours", "h1")  # the other host uses it
    await site.until_reaches("h2", "two_two_1", await site.address("h2", "two_two_1", "ours"))
    await site.compose("h2", two, "down -t 1")
    await site.until_unlisted("ours")
