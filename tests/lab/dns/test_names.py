"""Names across hosts, on the real kernel: who gets which, how soon, and what else can be reached by it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab import namespaces
from lab.lab import Lab, until
from tests.lab.dns.asking import DNS, Silence, addresses, ask, rcode
from tests.lab.worker.bench import attached, until_answers, workers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
SECONDS = 3.0
WITHIN_S = 1.0
COMMAND_S = 10
UNDERLAY, ALL_FRAMES = "eth0", 3


async def is_told(lab: Lab, where: str, name: str, wanted: set[str], kind: str = "A") -> bool:
    try:
        return await addresses(lab, where, name, kind) == wanted
    except Silence:
        return False


async def until_told(lab: Lab, where: str, name: str, wanted: set[str], kind: str = "A") -> float:
    """After how long."""
    began = time.monotonic()
    await until(partial(is_told, lab, where, name, wanted, kind), f"{where}: {name} is {wanted}", seconds=SECONDS)
    return time.monotonic() - began


def links(lab: Lab, host: str) -> str:
    command = ["nsenter", f"--net={lab.netns_of(host)}", "ip", "-br", "address"]
    return subprocess.run(command, check=True, capture_output=True, timeout=COMMAND_S, text=True).stdout


async def test_a_name_is_right_on_the_other_host_within_the_second(tmp_path: Path) -> None:
    async with workers(tmp_path) as lab:
        await lab.client.create_network({"name": "shop", "ipv6": True})
        await attached(lab, "shop", {"web": "h1"})
        took = []
        for round_ in range(5):
            await lab.add_workload(f"db{round_}", "h2")
            await lab.attach("shop", f"db{round_}", aliases=["db"])
            wanted = {lab.address_of(f"db{round_}", "shop")}
            took.append(await until_told(lab, "web", "db", wanted))
            assert await addresses(lab, "web", "DB.shop.kvnet", "AAAA") == {lab.address_of(f"db{round_}", "shop", 6)}
            assert await addresses(lab, "web", "db.shop", tcp=True) == wanted
            await lab.detach("shop", f"db{round_}")
            took.append(await until_told(lab, "web", "db", set()))
            assert await rcode(lab, "web", "db") == "NXDOMAIN"
        assert max(took) < WITHIN_S
        print("right on the other host after ms:", [round(1000 * one) for one in took])


async def test_every_holder_wherever_it_is_and_what_it_is(tmp_path: Path) -> None:
    async with workers(tmp_path) as lab:
        await lab.client.create_network({"name": "shop"})
        await attached(lab, "shop", {"a": "h1", "b": "h2", "c": "h2"}, aliases=["db"])
        everyone = {lab.address_of(name, "shop") for name in "abc"}
        for name in "abc":
            await until_told(lab, name, "db", everyone)
        told = await addresses(lab, "a", "b", "TXT")
        (text,) = told
        assert " host=h2 " in text
        version = int(text.split("version=")[1].rstrip('"'))
        assert version > 0
        reverse = ".".join(reversed(lab.address_of("b", "shop").split("."))) + ".in-addr.arpa"
        assert await addresses(lab, "a", reverse, "PTR") == {"b.shop."}


async def test_only_names_of_the_networks_that_the_asker_is_on(tmp_path: Path) -> None:
    async with workers(tmp_path) as lab:
        for name in ("front", "back"):
            await lab.client.create_network({"name": name})
        await lab.client.peer_networks("front", "back")
        await attached(lab, "front", {"web": "h1"})
        await attached(lab, "back", {"db": "h2"})
        await until_answers(lab, "web", lab.address_of("db", "back"))  # peers reach each other
        assert await rcode(lab, "web", "db") == "NXDOMAIN"
        assert await rcode(lab, "web", "db.back.kvnet") == "NXDOMAIN"
        await lab.attach("back", "web")
        await until_told(lab, "web", "db", {lab.address_of("db", "back")})
        await until_told(lab, "db", "web", {lab.address_of("web", "back")})
        await until_told(lab, "web", "web", {lab.address_of("web", "back"), lab.address_of("web", "front")})
        await lab.detach("back", "web")
        await until_told(lab, "web", "db", set())


async def test_an_internal_network_reaches_names_and_nothing_else_of_its_host(tmp_path: Path) -> None:
    async with workers(tmp_path) as lab:
        for driver in ("overlay", "bridge", "routed"):
            await lab.client.create_network({"name": driver, "driver": driver, "internal": True})
            await attached(lab, driver, {f"{driver}1": "h1"})
            await attached(lab, driver, {f"{driver}2": "h1"})
        await lab.serve("h1")
        for driver in ("overlay", "bridge", "routed"):
            one, other = f"{driver}1", f"{driver}2"
            await until_told(lab, one, other, {lab.address_of(other, driver)})
            assert await addresses(lab, one, other, tcp=True) == {lab.address_of(other, driver)}
            assert not await lab.answers(one, DNS, 8080)
            assert not await lab.answers(one, DNS, 8080, protocol="udp")
            assert not (await lab.ping(one, DNS, timeout_s=0.3)).ok
            assert not await lab.answers("h1", lab.address_of(one, driver)) or driver == "routed"


async def test_the_address_is_there_with_the_first_network_and_goes_with_the_last(tmp_path: Path) -> None:
    async with workers(tmp_path, hosts=1) as lab:
        assert "kvdns" not in links(lab, "h1")
        await lab.client.create_network({"name": "shop", "driver": "bridge"})
        await attached(lab, "shop", {"web": "h1"})
        assert f"{DNS}/32" in links(lab, "h1")
        run_on(lab, "h1", "ip", "link", "del", "kvdns")
        await until_told(lab, "web", "web", {lab.address_of("web", "shop")})
        run_on(lab, "h1", "ip", "address", "flush", "dev", "kvdns")
        await until_told(lab, "web", "web", {lab.address_of("web", "shop")})
        await lab.detach("shop", "web")

        async def is_gone() -> bool:
            return "kv" not in links(lab, "h1")

        await until(is_gone, "nothing of kvnet is left", seconds=SECONDS)


async def test_a_foreign_link_of_that_name_is_told_and_left_alone(tmp_path: Path) -> None:
    async with workers(tmp_path, hosts=1) as lab:
        run_on(lab, "h1", "ip", "link", "add", "kvdns", "type", "bridge")
        await lab.client.create_network({"name": "shop", "driver": "bridge"})
        await attached(lab, "shop", {"web": "h1", "db": "h1"})
        await until_answers(lab, "web", lab.address_of("db", "shop"))  # only names are missing

        async def codes(wanted: set[str]) -> bool:
            status = await lab.hosts["h1"].local.status()
            return {c["code"] for network in status["networks"] for c in network["conditions"]} == wanted

        await until(partial(codes, {"foreign-object"}), "it is told", seconds=SECONDS)
        assert DNS not in links(lab, "h1")
        run_on(lab, "h1", "ip", "link", "del", "kvdns")
        await until_told(lab, "web", "db", {lab.address_of("db", "shop")})
        await until(partial(codes, set()), "it is told no more", seconds=SECONDS)


async def test_a_published_port_53_does_not_take_the_questions(tmp_path: Path) -> None:
    async with workers(tmp_path, hosts=1) as lab:
        await lab.client.create_network({"name": "shop", "driver": "bridge"})
        await attached(lab, "shop", {"web": "h1"})
        await attached(lab, "shop", {"dns": "h1"}, ports=[{"port": 8080, "host_port": 53, "protocol": "udp"}])
        await until_told(lab, "web", "web", {lab.address_of("web", "shop")})


async def test_without_dns_nothing_of_it_is_there(tmp_path: Path) -> None:
    async with workers(tmp_path, hosts=1) as lab:
        await lab.hosts["h1"].worker.stop()  # type: ignore[union-attr]
        await lab.start_worker("h1", "--dns", "off")
        await lab.until_ready("h1")
        await lab.client.create_network({"name": "inner", "driver": "bridge", "internal": True})
        await attached(lab, "inner", {"web": "h1"})
        assert "kvdns" not in links(lab, "h1")
        with pytest.raises(Silence):
            await ask(lab, "web", "web")


async def test_on_a_physical_network_names_come_through_a_shim(tmp_path: Path) -> None:
    async with workers(tmp_path, lan=True) as lab:
        body = {"driver": "transparent", "uplink": "lan0", "shim": True, "subnets": [{"cidr": "192.168.77.0/24"}]}
        await lab.client.create_network({"name": "known", "force": True, **body})
        await attached(lab, "known", {"a": "h1", "b": "h2"})
        await until_told(lab, "a", "b", {lab.address_of("b", "known")})
        await until_told(lab, "b", "a", {lab.address_of("a", "known")})


async def test_on_an_operator_s_bridge_names_come_where_the_host_has_an_address(tmp_path: Path) -> None:
    async with workers(tmp_path, lan=True) as lab:
        for number, host in enumerate(lab.hosts, 201):
            run_on(lab, host, "ip", "link", "add", "br0", "type", "bridge")
            run_on(lab, host, "ip", "link", "set", "lan0", "master", "br0")
            run_on(lab, host, "ip", "address", "add", f"192.168.77.{number}/24", "dev", "br0")
            run_on(lab, host, "ip", "link", "set", "br0", "up")
        subnet = {"cidr": "192.168.77.0/24", "range": "192.168.77.64/26"}
        body = {"driver": "transparent", "uplink": "br0", "uplink_mode": "bridge", "subnets": [subnet]}
        await lab.client.create_network({"name": "known", "force": True, **body})
        await attached(lab, "known", {"a": "h1", "b": "h2"})
        await until_told(lab, "a", "b", {lab.address_of("b", "known")})
        await until_told(lab, "b", "a", {lab.address_of("a", "known")})


async def test_ip_netns_exec_finds_its_resolv_conf(tmp_path: Path) -> None:
    folder = Path(os.environ["KVNET_NAMESPACE_FILES"])
    async with workers(tmp_path, hosts=1) as lab:
        await lab.client.create_network({"name": "shop", "driver": "bridge"})
        await attached(lab, "shop", {"web": "h1"})
        assert (folder / "web/resolv.conf").exists(), "it is there when the attach has answered"
        # As on a host, where the folder is /etc/netns; in a mount namespace, for this /etc is not ours.
        script = f"""set -e
        mount -t tmpfs none /etc && mkdir /etc/netns && mount --bind {folder} /etc/netns && touch /etc/resolv.conf
        ip netns exec web cat /etc/resolv.conf"""
        done: Any = subprocess.run(  # noqa: ASYNC221
            ["unshare", "-m", "sh", "-c", script], check=True, capture_output=True, timeout=COMMAND_S, text=True
        )
        assert f"nameserver {DNS}" in done.stdout.splitlines()
        await lab.detach("shop", "web")
        assert not (folder / "web").exists(), "it went with the last network"


async def test_the_question_for_the_address_never_leaves_the_host(tmp_path: Path) -> None:
    async with workers(tmp_path) as lab:
        options = {"internal": True, "flood": True, "subnets": [{"cidr": "10.66.0.0/24"}]}
        await lab.client.create_network({"name": "loud", **options})
        await attached(lab, "loud", {"a": "h1", "b": "h2", "c": "h1"})
        with listening(lab, "h1") as heard:
            run_on(lab, "a", "ip", "neigh", "flush", "all")
            await until_told(lab, "a", "b", {lab.address_of("b", "loud")})
            await until_answers(lab, "a", lab.address_of("b", "loud"))
        assert heard, "something was heard at all"
        assert not [frame for frame in heard if bytes((169, 254, 53, 53)) in frame]


def run_on(lab: Lab, where: str, *command: str) -> None:
    subprocess.run(["nsenter", f"--net={lab.netns_of(where)}", *command], check=True, timeout=COMMAND_S)


@contextlib.contextmanager
def listening(lab: Lab, host: str) -> Iterator[list[bytes]]:
    """Every frame that the host sends to the others meanwhile."""
    heard: list[bytes] = []
    with namespaces.open_socket(lab.netns_of(host), socket.AF_PACKET, socket.SOCK_RAW, 0) as tap:
        tap.bind((UNDERLAY, ALL_FRAMES))
        tap.setblocking(False)
        yield heard
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.append(tap.recv(65_535))
