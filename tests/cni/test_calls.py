"""CNI's commands, each called as the specification says, against real workers and the real kernel."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvnet.wire import Endpoint
from lab import namespaces
from lab.lab import Lab, until
from tests.cni.calling import CHECKOUT, Programs, Runtime
from tests.lab.eye import by_hand, everything
from tests.lab.worker.bench import until_answers, until_silent
from worker.runtimes.cni.options import CAPABILITIES

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
VALID = "cni.dev/valid-attachments"
DEFAULT_ROUTES = {("0.0.0.0/0", "10.90.0.1"), ("::/0", "fd90::1")}


@pytest.fixture
async def runtime(lab: Lab, programs: Programs) -> AsyncIterator[Runtime]:
    made = Runtime(programs.cni, lab.hosts["h1"].socket)
    yield made
    for name in ("pods", "others"):
        (await replace(made, name=name).call("GC", **{VALID: []})).require_quiet()
    assert await endpoints(lab) == []


@pytest.fixture
def sandbox() -> Iterator[Callable[[str], Path]]:
    """Makes namespaces, as a runtime does before it calls a plugin."""
    made: list[Path] = []

    def make(name: str = "blue") -> Path:
        made.append(namespaces.create(name))
        return made[-1]

    yield make
    for path in made:
        namespaces.destroy(path)


Sandbox = Callable[[str], Path]


async def endpoints(lab: Lab) -> list[Endpoint]:
    return [endpoint async for endpoint in lab.client.endpoints()]


def addresses(netns: Path, interface: str = "eth0") -> set[str]:
    return {address for device, address in everything(netns).addresses if device == interface}


def links(netns: Path) -> set[str]:
    return set(everything(netns).links)


# ADD


async def test_add_makes_the_interface_and_tells_what_is_there(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    netns = sandbox("blue")
    result = await runtime.add("c1", netns)

    (endpoint,) = await endpoints(lab)
    host, inner = result["interfaces"]
    assert host["name"] in links(lab.hosts["h1"].netns)
    assert "sandbox" not in host
    assert inner == {"name": "eth0", "mac": endpoint["mac"], "mtu": inner["mtu"], "sandbox": str(netns)}
    assert inner["mtu"] == host["mtu"] > 1300
    assert [ip["address"].split("/")[0] for ip in result["ips"]] == endpoint["addresses"]
    assert set(endpoint["addresses"]) <= addresses(netns)
    assert [ip["gateway"] for ip in result["ips"]] == ["10.90.0.1", "fd90::1"]
    assert {ip["interface"] for ip in result["ips"]} == {1}
    assert {(route["dst"], route["gw"]) for route in result["routes"]} == DEFAULT_ROUTES
    assert (endpoint["name"], endpoint["host"]) == ("c1", "h1")
    assert endpoint["labels"] == {"cni.container": "c1", "cni.network": "pods"}


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
async def test_every_version_is_answered_in_its_own_words(runtime: Runtime, sandbox: Sandbox, version: str) -> None:
    result = await replace(runtime, version=version).add("c1", sandbox("blue"))

    assert result["cniVersion"] == version
    assert ["version" in ip for ip in result["ips"]] == [version < "1.0.0"] * 2
    assert ["mtu" in interface for interface in result["interfaces"]] == [version == "1.1.0"] * 2


async def test_containers_of_two_hosts_reach_each_other(
    lab: Lab, programs: Programs, runtime: Runtime, sandbox: Sandbox
) -> None:
    far = Runtime(programs.cni, lab.hosts["h2"].socket)
    workload = await lab.add_workload("far", "h2", serve=True)
    try:
        await runtime.add("c1", sandbox("blue"))
        result = await far.add("c2", workload.netns)
        await lab.add_workload("near", "h1")
        await runtime.add("c3", lab.netns_of("near"))
        for ip in result["ips"]:
            await until_answers(lab, "near", ip["address"].split("/")[0])
    finally:
        await far.delete("c2", workload.netns)
        for name in ("near", "far"):
            await lab.remove_workload(name)


async def test_what_a_runtime_asks_for_is_given(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    asked = {"ips": ["10.90.0.77/24", "fd90::77"], "mac": "02:00:00:00:77:77", "aliases": ["db", "cache"]}
    result = await runtime.add("c1", sandbox("blue"), runtimeConfig=asked)

    (endpoint,) = await endpoints(lab)
    assert [ip["address"] for ip in result["ips"]] == ["10.90.0.77/24", "fd90::77/64"]
    assert result["interfaces"][1]["mac"] == "02:00:00:00:77:77"
    assert endpoint["aliases"] == ["db", "cache"]


@pytest.mark.parametrize(
    ("arguments", "more", "address"),
    [
        ("IP=10.90.0.50", {}, "10.90.0.50"),
        ("IP=10.90.0.50/24", {"args": {"cni": {"ips": ["10.90.0.51"]}}}, "10.90.0.51"),
        ("", {"args": {"cni": {"ips": ["10.90.0.51"]}}, "runtimeConfig": {"ips": ["10.90.0.52"]}}, "10.90.0.52"),
    ],
)
async def test_of_several_ways_to_ask_for_an_address_the_newest_counts(
    runtime: Runtime, sandbox: Sandbox, arguments: str, more: dict[str, Any], address: str
) -> None:
    result = await runtime.add("c1", sandbox("blue"), arguments=arguments, **more)
    assert result["ips"][0]["address"] == f"{address}/24"


async def test_a_pod_is_called_as_its_runtime_calls_it(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    told = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=abc"
    labels = {"cni": {"labels": [{"key": "tier", "value": "front"}]}}
    await runtime.add("a" * 64, sandbox("blue"), arguments=told, args=labels)

    (endpoint,) = await endpoints(lab)
    assert (endpoint["name"], endpoint["aliases"]) == ("web-0", ["web-0.shop"])
    assert endpoint["labels"] == {
        "cni.container": "a" * 64,
        "cni.network": "pods",
        "k8s.namespace": "shop",
        "k8s.pod": "web-0",
        "tier": "front",
    }


async def test_an_allocation_of_nomads_has_the_names_of_its_job_and_group(
    lab: Lab, runtime: Runtime, sandbox: Sandbox
) -> None:
    told = "IgnoreUnknown=true;NOMAD_REGION=global;NOMAD_JOB_ID=shop;NOMAD_GROUP_NAME=web;NOMAD_ALLOC_ID=0123456789ab"
    await runtime.add("c1", sandbox("blue"), arguments=told)

    (endpoint,) = await endpoints(lab)
    assert (endpoint["name"], endpoint["aliases"]) == ("shop-web-01234567", ["web", "shop"])
    assert endpoint["labels"]["nomad.job"] == "shop"


async def test_mapped_ports_are_reached_from_outside_until_the_container_goes(lab: Lab, runtime: Runtime) -> None:
    workload = await lab.add_workload("web", "h1", serve=True)
    address = str(lab.hosts["h1"].port.underlay4)
    mappings = [
        {"hostPort": 8880, "containerPort": 8080, "protocol": "tcp"},
        # As containerd and Nomad write it.
        {"HostPort": 8881, "ContainerPort": 8081, "Protocol": "UDP", "HostIP": address},
    ]
    await runtime.add("c1", workload.netns, runtimeConfig={"portMappings": mappings})
    await until_answers(lab, "outside", address, 8880)
    await until_answers(lab, "outside", address, 8881, protocol="udp")

    await runtime.delete("c1", workload.netns)
    await until_silent(lab, "outside", address, 8880)
    await lab.remove_workload("web")


async def test_a_port_that_is_taken_is_refused_and_leaves_nothing(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    ports = {"portMappings": [{"hostPort": 8880, "containerPort": 80, "protocol": "tcp"}]}
    await runtime.add("c1", sandbox("blue"), runtimeConfig=ports)
    green = sandbox("green")

    answer = await runtime.call("ADD", "c2", green, runtimeConfig=ports)
    assert answer.code == 102
    assert "c1" in answer.message
    assert links(green) == {"lo"}
    assert len(await endpoints(lab)) == 1


async def test_an_interface_that_is_there_already_is_an_error(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    netns = sandbox("blue")
    by_hand(netns, lambda ip: ip.link("add", ifname="eth0", kind="bridge"))

    answer = await runtime.call("ADD", "c1", netns)
    assert answer.code == 103
    assert "eth0" in answer.message
    assert await endpoints(lab) == []


async def test_the_same_add_again_is_the_same_endpoint(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    netns = sandbox("blue")
    first = await runtime.add("c1", netns)
    assert await runtime.add("c1", netns) == first
    assert len(await endpoints(lab)) == 1


@pytest.mark.parametrize("other", [{"ips": ["10.90.0.200"]}, {"ips": ["fd90::200"]}, {"mac": "02:00:00:00:77:77"}])
async def test_an_add_that_asks_for_something_else_is_not_answered_with_what_is_there(
    lab: Lab, runtime: Runtime, sandbox: Sandbox, other: dict[str, Any]
) -> None:
    netns = sandbox("blue")
    first = await runtime.add("c1", netns)
    answer = await runtime.call("ADD", "c1", netns, runtimeConfig=other)
    assert answer.code == 103
    assert first["ips"][0]["address"].split("/")[0] in answer.message

    given = {"ips": [ip["address"] for ip in first["ips"]], "mac": first["interfaces"][1]["mac"].upper()}
    assert await runtime.add("c1", netns, runtimeConfig=given) == first


async def test_a_container_in_one_network_twice_has_two_endpoints(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    netns = sandbox("blue")
    await runtime.add("c1", netns)
    again = await runtime.add("c1", netns, interface="eth1")
    assert await runtime.add("c1", netns, interface="eth1") == again

    assert {endpoint["name"] for endpoint in await endpoints(lab)} == {"c1", "c1-eth1"}
    await runtime.delete("c1", netns, interface="eth1")
    assert links(netns) == {"lo", "eth0"}


async def test_a_container_that_starts_again_in_another_namespace_is_attached_anew(
    lab: Lab, runtime: Runtime, sandbox: Sandbox
) -> None:
    blue = sandbox("blue")
    await runtime.add("c1", blue)
    namespaces.destroy(blue)
    green = sandbox("green")
    result = await runtime.add("c1", green)

    assert result["interfaces"][1]["sandbox"] == str(green)
    assert links(green) == {"lo", "eth0"}
    assert len(await endpoints(lab)) == 1


async def test_a_container_that_is_elsewhere_at_the_same_time_is_refused(runtime: Runtime, sandbox: Sandbox) -> None:
    blue = sandbox("blue")
    await runtime.add("c1", blue)
    answer = await runtime.call("ADD", "c1", sandbox("green"))
    assert answer.code >= 100
    assert str(blue) in answer.message


async def test_20_adds_at_once_get_20_addresses(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    boxes = [sandbox(f"box{number}") for number in range(20)]
    results = await asyncio.gather(*(runtime.add(f"c{n}", box) for n, box in enumerate(boxes)))

    assert len({ip["address"] for result in results for ip in result["ips"]}) == 40
    assert len(await endpoints(lab)) == 20
    await asyncio.gather(*(runtime.delete(f"c{n}", box) for n, box in enumerate(boxes)))
    assert {name for name in links(lab.hosts["h1"].netns) if name.startswith("kve")} == set()


async def test_a_network_that_is_missing_is_named_and_made_if_the_list_says_so(
    lab: Lab, runtime: Runtime, sandbox: Sandbox
) -> None:
    others, netns = replace(runtime, name="others"), sandbox("blue")
    answer = await others.call("ADD", "c1", netns)
    assert answer.code == 7
    assert "others" in answer.message

    create = {"driver": "bridge", "subnets": [{"cidr": "10.91.0.0/24"}]}
    result = await others.add("c1", netns, create=create, ipMasq=False)
    assert [ip["address"].split(".")[:2] for ip in result["ips"]] == [["10", "91"]]
    made = await lab.client.get_network("others")
    assert (made["driver"], made["masquerade"]) == ("bridge", False)
    await others.delete("c1", netns)
    await lab.client.delete_network("others")


@pytest.mark.parametrize(
    ("create", "has_way_out"),
    [({"driver": "bridge"}, True), ({"driver": "routed"}, True), ({"driver": "overlay", "internal": True}, False)],
)
async def test_networks_of_all_kinds_are_told_as_they_are(
    lab: Lab, runtime: Runtime, sandbox: Sandbox, create: dict[str, Any], has_way_out: bool
) -> None:
    others, netns = replace(runtime, name="others", keys={"create": create}), sandbox("blue")
    result = await others.add("c1", netns)
    assert any(route["dst"] == "0.0.0.0/0" for route in result["routes"]) is has_way_out
    assert all("gateway" in ip for ip in result["ips"]) is has_way_out
    assert result["dns"] == {"nameservers": ["169.254.53.53"]}
    assert {ip["address"].split("/")[0] for ip in result["ips"]} <= addresses(netns)
    (await others.call("CHECK", "c1", netns, prevResult=result)).require_quiet()
    await others.delete("c1", netns)
    await lab.client.delete_network("others")


async def test_a_network_that_two_hosts_make_at_once_is_one(
    lab: Lab, programs: Programs, runtime: Runtime, sandbox: Sandbox
) -> None:
    near = replace(runtime, name="others", keys={"create": {"driver": "overlay"}})
    far = replace(near, socket=lab.hosts["h2"].socket)
    boxes = [sandbox(name) for name in ("blue", "green")]
    adds = [one.add("c1", box) for one, box in zip((near, far), boxes, strict=True)]
    results = await asyncio.gather(*adds)
    assert len({result["ips"][0]["address"] for result in results}) == 2
    assert [n["name"] async for n in lab.client.networks(name="others")] == ["others"]
    for one, box in zip((near, far), boxes, strict=True):
        await one.delete("c1", box)
    await lab.client.delete_network("others")


async def test_names_are_asked_where_the_runtime_says_else_where_the_list_says(
    runtime: Runtime, sandbox: Sandbox
) -> None:
    dns = {"nameservers": ["10.0.0.53"], "search": ["example.org"]}
    result = await runtime.add("c1", sandbox("blue"), dns=dns)
    assert result["dns"] == dns
    asked = {"dns": {"Servers": ["10.0.0.54"], "searches": ["svc.example.org"], "Options": None}}
    result = await runtime.add("c2", sandbox("green"), dns=dns, runtimeConfig=asked)
    assert result["dns"] == {"nameservers": ["10.0.0.54"], "search": ["svc.example.org"]}


# chains


async def test_what_an_earlier_plugin_made_stays_in_the_result(runtime: Runtime, sandbox: Sandbox) -> None:
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo", "sandbox": "/run/netns/blue"}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "routes": [{"dst": "192.0.2.0/24", "gw": "127.0.0.2"}],
        "dns": {"nameservers": ["10.0.0.53"]},
    }
    result = await runtime.add("c1", sandbox("blue"), prevResult=previous)
    assert [interface["name"] for interface in result["interfaces"]][0::2] == ["lo", "eth0"]
    assert [ip["interface"] for ip in result["ips"]] == [0, 2, 2]
    assert [route["dst"] for route in result["routes"]] == ["192.0.2.0/24", "0.0.0.0/0", "::/0"]
    assert result["dns"] == {"nameservers": ["10.0.0.53"]}


# DEL


async def test_del_takes_everything_and_may_be_repeated(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    netns = sandbox("blue")
    await runtime.add("c1", netns)
    for _ in range(3):
        await runtime.delete("c1", netns)
        assert links(netns) == {"lo"}
        assert await endpoints(lab) == []


async def test_del_succeeds_whatever_is_missing(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    netns = sandbox("blue")
    await runtime.delete("never-added", netns)
    await runtime.delete("never-added", "/run/netns/nowhere")
    await runtime.delete("never-added")
    await replace(runtime, name="no-such-network").delete("c1", netns)
    await runtime.add("c1", netns)
    namespaces.destroy(netns)
    await runtime.delete("c1", netns)
    assert await endpoints(lab) == []


async def test_del_needs_nothing_but_the_environment(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    netns = sandbox("blue")
    await runtime.add("c1", netns)
    await runtime.add("c1", netns, interface="eth1")
    (await runtime.call("DEL", "c1", interface="eth1", config=b"")).require_quiet()
    assert links(netns) == {"lo", "eth0"}
    (await runtime.call("DEL", "c1", unknown={}, ipam={"type": "x"}, runtimeConfig={"ips": 7})).require_quiet()
    assert links(netns) == {"lo"}


# CHECK


async def test_check_is_content_right_after_add(runtime: Runtime, sandbox: Sandbox) -> None:
    netns = sandbox("blue")
    result = await runtime.add("c1", netns)
    (await runtime.call("CHECK", "c1", netns, prevResult=result)).require_quiet()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda ip, at: ip.link("set", index=at, state="down"), "down"),
        (lambda ip, at: ip.addr("del", index=at, address="10.90.0.77", prefixlen=24), "lost 10.90.0.77/24"),
        (lambda ip, at: ip.route("del", dst="default", gateway="10.90.0.1"), "route to 0.0.0.0/0"),
        (lambda ip, at: ip.link("set", index=at, address="02:00:00:00:00:01"), "MAC"),
        (lambda ip, at: ip.link("set", index=at, state="down", ifname="eth7"), "not in"),
    ],
)
async def test_check_finds_what_somebody_changed(
    runtime: Runtime, sandbox: Sandbox, harm: Callable[[Any, int], Any], words: str
) -> None:
    netns = sandbox("blue")
    result = await runtime.add("c1", netns, runtimeConfig={"ips": ["10.90.0.77"]})
    by_hand(netns, lambda ip: harm(ip, ip.link_lookup(ifname="eth0")[0]))

    answer = await runtime.call("CHECK", "c1", netns, prevResult=result)
    assert answer.code == 110
    assert words in answer.message


async def test_check_finds_that_the_namespace_is_another_one(runtime: Runtime, sandbox: Sandbox) -> None:
    result = await runtime.add("c1", sandbox("blue"))
    for other in (sandbox("green"), "/run/netns/nowhere"):
        answer = await runtime.call("CHECK", "c1", other, prevResult=result)
        assert answer.code == 110
        assert str(other) in answer.message


async def test_check_finds_that_the_endpoint_is_gone_from_the_store(
    lab: Lab, runtime: Runtime, sandbox: Sandbox
) -> None:
    netns = sandbox("blue")
    result = await runtime.add("c1", netns)
    (endpoint,) = await endpoints(lab)
    await lab.client.delete_endpoint("pods", endpoint["id"])

    async def is_noticed() -> bool:
        return (await runtime.call("CHECK", "c1", netns, prevResult=result)).status != 0

    await until(is_noticed, "CHECK notices", seconds=3.0)
    assert (await runtime.call("CHECK", "c1", netns, prevResult=result)).code == 110


async def test_check_lets_a_later_plugin_add_to_the_result(runtime: Runtime, sandbox: Sandbox) -> None:
    netns = sandbox("blue")
    result = await runtime.add("c1", netns)
    result["interfaces"].append({"name": "tun0", "sandbox": str(netns)})
    result["ips"].append({"address": "192.0.2.1/24", "interface": 2})
    result["routes"].append({"dst": "198.51.100.0/24", "gw": "192.0.2.9"})
    (await runtime.call("CHECK", "c1", netns, prevResult=result)).require_quiet()


# GC, STATUS


async def test_gc_takes_away_what_is_not_valid_and_nothing_of_other_lists(
    lab: Lab, runtime: Runtime, sandbox: Sandbox
) -> None:
    boxes = {name: sandbox(name) for name in ("keep", "stale", "gone", "other")}
    for name in ("keep", "stale", "gone"):
        await runtime.add(name, boxes[name])
    await replace(runtime, name="others").add("other", boxes["other"], network="pods")
    namespaces.destroy(boxes["gone"])

    (await runtime.call("GC", **{VALID: [{"containerID": "keep", "ifname": "eth0"}]})).require_quiet()
    assert {endpoint["name"] for endpoint in await endpoints(lab)} == {"keep", "other"}
    assert links(boxes["stale"]) == {"lo"}
    assert links(boxes["keep"]) == {"lo", "eth0"}


async def test_gc_without_a_list_takes_nothing(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    await runtime.add("c1", sandbox("blue"))
    for given in ({}, {VALID: {}}, {VALID: ["c1"]}):
        assert (await runtime.call("GC", **given)).code == 7
    assert len(await endpoints(lab)) == 1


async def test_status_says_whether_an_add_could_succeed(runtime: Runtime) -> None:
    (await runtime.call("STATUS")).require_quiet()
    answer = await replace(runtime, name="nowhere").call("STATUS")
    assert answer.code == 50
    assert "nowhere" in answer.message
    (await replace(runtime, name="nowhere").call("STATUS", create=True)).require_quiet()


async def test_the_versions_are_told_without_a_worker(runtime: Runtime) -> None:
    answer = await replace(runtime, socket=Path("/nowhere"), version="9.9.9").call("VERSION")
    assert answer.result == {"cniVersion": "9.9.9", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]}


async def test_the_packaged_list_works_as_it_is(lab: Lab, runtime: Runtime, sandbox: Sandbox) -> None:
    listed = json.loads((CHECKOUT / "packaging/cni/10-kvnet.conflist").read_text())
    (plugin,) = listed["plugins"]
    capabilities = plugin.pop("capabilities")
    assert sorted(capabilities) == sorted(CAPABILITIES)
    packaged = replace(runtime, name=listed["name"], keys=plugin)
    for version in listed["cniVersions"]:
        speaking, netns = replace(packaged, version=version), sandbox(f"v{version}")
        result = await speaking.add("c1", netns)
        assert result["cniVersion"] == version
        await speaking.delete("c1", netns)
    await lab.client.delete_network("containers")


def test_only_what_is_needed_is_loaded() -> None:
    """Every module costs time at every start of a container."""
    show = "import sys; import kvnet.shims.cni, kvnet.shims.netavark; print(*sys.modules)"
    words = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); {show}"]
    loaded = set(subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout.split())
    assert {name for name in loaded if name.startswith("kvnet")} == {
        "kvnet",
        "kvnet.shims",
        "kvnet.shims.cni",
        "kvnet.shims.netavark",
        "kvnet.shims.relay",
    }
    assert not loaded & {"typing", "asyncio", "ssl", "http", "urllib", "dataclasses", "ipaddress", "pathlib", "logging"}


def test_the_program_takes_less_than_50_ms_of_its_own(programs: Programs) -> None:
    """Of a processor, so that it does not matter who else uses that; the least of several, for the same reason."""
    assert min(_processor_seconds(programs.cni) for _ in range(20)) < 0.05


def _processor_seconds(program: Path) -> float:
    child = subprocess.Popen(
        [program], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={"CNI_COMMAND": "VERSION"}
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return used.ru_utime + used.ru_stime
