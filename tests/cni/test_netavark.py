"""Netavark's plugin API, called as netavark does, and by netavark itself where it is new enough to have plugins."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvnet import __version__
from lab import namespaces
from lab.lab import Lab
from tests.cni.calling import Answer, Programs, run
from tests.lab.eye import everything
from tests.lab.worker.bench import until_answers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
ID = "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9"
CONTAINER = "752947ff91f961eb3cb47ffe9315016979f3ffbec09e4d96a4fae3fb03391697"


class Netavark:
    def __init__(self, program: Path, socket: Path) -> None:
        self._program = program
        self._socket = socket

    def network(self, name: str = "pods", **more: Any) -> dict[str, Any]:
        """As Podman hands it over."""
        plain = {"name": name, "id": ID, "driver": "kvnet-netavark", "dns_enabled": False, "internal": False}
        return {**plain, "ipv6_enabled": False, "ipam_options": {"driver": "host-local"}, **more}

    async def call(self, command: str, given: Any, *arguments: str | Path) -> Answer:
        text = given if isinstance(given, bytes) else json.dumps(given).encode()
        environment = {"KVNET_SOCKET": str(self._socket)}
        return await run(self._program, text, environment, command, *map(str, arguments))

    async def create(self, **more: Any) -> dict[str, Any]:
        return (await self.call("create", self.network(**more))).result

    def container(self, network: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        options = {"interface_name": "eth0", "aliases": None, "static_ips": None, "static_mac": None}
        plain = {"container_id": CONTAINER, "container_name": "web", "port_mappings": None}
        return {**plain, "network": network or self.network(), "network_options": options, **more}


@pytest.fixture
async def netavark(lab: Lab, programs: Programs) -> AsyncIterator[Netavark]:
    yield Netavark(programs.netavark, lab.hosts["h1"].socket)
    async for endpoint in lab.client.endpoints():
        await lab.hosts["h1"].local.detach(id=endpoint["id"])
    async for network in lab.client.networks():
        if network["name"] != "pods":
            await lab.client.delete_network(network["name"])


@pytest.fixture
def netns() -> Iterator[Path]:
    made = namespaces.create("blue")
    yield made
    namespaces.destroy(made)


async def test_info_tells_the_versions(programs: Programs) -> None:
    answer = await run(programs.netavark, b"", {}, "info")
    assert answer.result == {"version": __version__, "api_version": "1.0.0"}


async def test_create_makes_a_network_and_fills_in_its_subnets(lab: Lab, netavark: Netavark) -> None:
    made = await netavark.create(name="shop", options={"driver": "bridge", "mtu": "1400"})
    (subnet,) = (await lab.client.get_network("shop"))["subnets"]
    assert made["subnets"] == [{"subnet": subnet["cidr"], "gateway": subnet["gateway"]}]
    assert (made["name"], made["id"], made["driver"]) == ("shop", ID, "kvnet-netavark")
    network = await lab.client.get_network("shop")
    assert (network["driver"], network["mtu"]) == ("bridge", 1400)


async def test_create_on_a_second_host_joins_the_network(lab: Lab, netavark: Netavark, programs: Programs) -> None:
    subnets = [{"subnet": "10.94.0.0/24", "gateway": "10.94.0.254", "lease_range": None}]
    await netavark.create(name="shop", subnets=subnets)
    far = Netavark(programs.netavark, lab.hosts["h2"].socket)
    for given in (subnets, []):
        joined = await far.create(name="shop", subnets=given, id="f" * 64)
        assert [(s["subnet"], s["gateway"]) for s in joined["subnets"]] == [("10.94.0.0/24", "10.94.0.254")]
    answer = await far.call("create", far.network("shop", subnets=[{"subnet": "10.95.0.0/24"}]))
    assert answer.status == 1
    assert "10.94.0.0/24" in str(answer.said)


async def test_setup_and_teardown(lab: Lab, netavark: Netavark, netns: Path) -> None:
    given = netavark.container()
    status = (await netavark.call("setup", given, netns)).result

    (endpoint,) = [e async for e in lab.client.endpoints()]
    (inner,) = status["interfaces"].values()
    assert list(status["interfaces"]) == ["eth0"]
    assert inner["mac_address"] == endpoint["mac"]
    assert [subnet["ipnet"].split("/")[0] for subnet in inner["subnets"]] == endpoint["addresses"]
    assert [subnet["gateway"] for subnet in inner["subnets"]] == ["10.90.0.1", "fd90::1"]
    assert (endpoint["name"], endpoint["labels"]) == ("web", {"podman.container": CONTAINER})
    assert (await netavark.call("setup", given, netns)).result == status

    for _ in range(2):
        (await netavark.call("teardown", given, netns)).require_quiet()
        assert set(everything(netns).links) == {"lo"}
        assert [e async for e in lab.client.endpoints()] == []
    (await netavark.call("teardown", given, "/run/netns/nowhere")).require_quiet()


async def test_what_podman_asks_for_is_given(lab: Lab, netavark: Netavark) -> None:
    workload = await lab.add_workload("web", "h1", serve=True)
    options = {"interface_name": "net1", "aliases": ["db"], "static_ips": ["10.90.0.88", "fd90::88"]}
    ports = [{"container_port": 8080, "host_ip": "", "host_port": 8870, "protocol": "tcp,udp", "range": 2}]
    given = netavark.container(port_mappings=ports, network_options={**options, "static_mac": "02:00:00:00:00:AA"})
    status = (await netavark.call("setup", given, workload.netns)).result

    assert status["interfaces"]["net1"]["mac_address"] == "02:00:00:00:00:aa"
    assert [s["ipnet"] for s in status["interfaces"]["net1"]["subnets"]] == ["10.90.0.88/24", "fd90::88/64"]
    address = str(lab.hosts["h1"].port.underlay4)
    for port, protocol in ((8870, "tcp"), (8871, "tcp"), (8870, "udp"), (8871, "udp")):
        await until_answers(lab, "outside", address, port, protocol=protocol)
    (await netavark.call("teardown", given, workload.netns)).require_quiet()
    await lab.remove_workload("web")


async def test_a_network_of_podmans_may_stand_for_another_one(lab: Lab, netavark: Netavark, netns: Path) -> None:
    network = await netavark.create(name="local-name", options={"network": "pods"})
    assert [subnet["subnet"] for subnet in network["subnets"]] == ["10.90.0.0/24", "fd90::/64"]
    status = (await netavark.call("setup", netavark.container(network), netns)).result
    assert status["interfaces"]["eth0"]["subnets"][0]["ipnet"].startswith("10.90.0.")
    assert [n["name"] async for n in lab.client.networks()] == ["pods"]


@pytest.mark.parametrize(
    ("command", "given", "words"),
    [
        ("create", b"{", "cannot be read"),
        ("create", b"[]", "not a JSON object"),
        ("create", {}, "name"),
        ("create", {"name": "a b"}, "'a b'"),
        ("create", {"name": "x", "options": {"mtuu": "1"}}, "mtu"),
        ("create", {"name": "x", "options": {"mtu": "big"}}, "big"),
        ("create", {"name": "x", "options": [1]}, "options"),
        ("create", {"name": "x", "subnets": [{"subnet": "10.0.0.1/24"}]}, "10.0.0.1/24"),
        ("create", {"name": "x", "subnets": [{"subnet": "10.90.0.0/25"}]}, "pods"),
        ("create", {"name": "x", "subnets": [{"subnet": "10.96.0.0/24", "lease_range": {"start_ip": "x"}}]}, "'x'"),
        ("setup", {}, "network"),
        ("setup", {"network": {"id": "1", "name": "pods"}, "container_id": "c"}, "network_options"),
        ("teardown", {"network": 7}, "network"),
        ("update", {}, "update"),
        ("", {}, "unknown command"),
    ],
)
async def test_bad_input_is_refused_in_words_and_changes_nothing(
    lab: Lab, netavark: Netavark, netns: Path, command: str, given: Any, words: str
) -> None:
    answer = await netavark.call(command, given, netns)
    assert answer.status == 1
    assert answer.said is not None
    assert words in answer.said["error"]
    assert [n["name"] async for n in lab.client.networks()] == ["pods"]
    assert [e async for e in lab.client.endpoints()] == []


async def test_without_a_worker_it_says_so(programs: Programs, tmp_path: Path) -> None:
    away = Netavark(programs.netavark, tmp_path / "nobody.sock")
    answer = await away.call("create", away.network("x"))
    assert answer.status == 1
    assert answer.said is not None
    assert "nobody.sock" in answer.said["error"]
