"""Calls that cannot be done: each is told by the specification's number, in words, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvnet.errors import Invalid
from lab import namespaces
from lab.lab import Lab
from tests.cni.calling import Programs, Runtime, run

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.fixture
def runtime(lab: Lab, programs: Programs) -> Runtime:
    return Runtime(programs.cni, lab.hosts["h1"].socket)


@pytest.fixture
def away(programs: Programs, tmp_path: Path) -> Runtime:
    return Runtime(programs.cni, tmp_path / "nobody.sock")


@pytest.fixture
def netns() -> Any:
    made = namespaces.create("blue")
    yield made
    namespaces.destroy(made)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "CNI_COMMAND"),
        ({"CNI_COMMAND": "PING"}, "PING"),
        ({"CNI_COMMAND": "add"}, "add"),
        ({"CNI_COMMAND": "ADD"}, "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"),
        ({"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}, "CNI_NETNS"),
        ({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1"}, "CNI_IFNAME"),
        ({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "-c1", "CNI_IFNAME": "eth0"}, "CNI_CONTAINERID"),
        ({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c/../1", "CNI_IFNAME": "eth0"}, "CNI_CONTAINERID"),
        ({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0/1"}, "CNI_IFNAME"),
        ({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "x" * 16}, "CNI_IFNAME"),
        ({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "blue"}, "CNI_NETNS"),
        ({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_ARGS": "IP"}, "CNI_ARGS"),
    ],
)
async def test_a_bad_variable_is_named(runtime: Runtime, environment: dict[str, str], words: str) -> None:
    answer = await run(runtime.program, json.dumps(runtime.config()).encode(), environment)
    assert answer.code == 4
    assert words in answer.message
    assert answer.said is not None
    assert answer.said["cniVersion"] == "1.1.0"


@pytest.mark.parametrize("given", [b"{", b"[]", b"null", b"\xff{}", b'{"a":' * 5000, b'"x"' + b" " * (1 << 17)])
async def test_what_cannot_be_read_is_told_so(runtime: Runtime, netns: Path, given: bytes) -> None:
    for command in ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"):
        answer = await runtime.call(command, "c1", netns, config=given)
        assert answer.code == 6


@pytest.mark.parametrize("version", ["0.2.0", "0.1.0", "1.2.0", "2.0.0", "", None, 1])
async def test_a_version_that_is_not_ours_is_refused(runtime: Runtime, netns: Path, version: Any) -> None:
    answer = await runtime.call("ADD", "c1", netns, cniVersion=version)
    assert answer.code == 1
    assert "1.1.0" in str(answer.said)


@pytest.mark.parametrize(
    ("command", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0"), ("STATUS", "0.4.0")]
)
async def test_a_command_that_the_version_does_not_have_is_refused(
    runtime: Runtime, netns: Path, command: str, version: str
) -> None:
    assert (await runtime.call(command, "c1", netns, cniVersion=version)).code == 1


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"netwrk": "pods"}, 2, "'network'"),
        ({"bridge": "cni0"}, 2, "bridge = 'cni0'"),
        ({"ipam": {"type": "host-local"}}, 2, "host-local"),
        ({"runtimeConfig": {"bandwidth": {"ingressRate": 1}}}, 2, "ingressRate"),
        ({"runtimeConfig": {"ips": ["10.90.0.5", "10.90.0.6"]}}, 2, "10.90.0.6"),
        ({"runtimeConfig": {"ips": ["10.90.0.5/240"]}}, 7, "10.90.0.5/240"),
        ({"runtimeConfig": {"ips": "10.90.0.5"}}, 7, "ips"),
        ({"runtimeConfig": {"ips": [5.5]}}, 7, "address"),
        ({"runtimeConfig": {"ips": ["192.0.2.1"]}}, 7, "192.0.2.1"),
        ({"runtimeConfig": {"mac": "01:00:00:00:00:00"}}, 7, "MAC"),
        ({"runtimeConfig": {"mac": 7}}, 7, "mac"),
        ({"runtimeConfig": {"aliases": ["a", 1]}}, 7, "alias"),
        ({"runtimeConfig": {"dns": "x"}}, 7, "dns"),
        ({"runtimeConfig": []}, 7, "runtimeConfig"),
        ({"runtimeConfig": {"portMappings": [{"containerPort": 80}]}}, 7, "hostPort"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": 0, "containerPort": 80}]}}, 7, "hostPort"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": True, "containerPort": 80}]}}, 7, "hostPort"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": 70000, "containerPort": 80}]}}, 7, "hostPort"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 80, "x": 1}]}}, 7, "portMappings"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 8, "protocol": "sctp"}]}}, 7, "sctp"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 8, "hostIP": "x"}]}}, 7, "'x'"),
        ({"ipMasq": "yes"}, 7, "ipMasq"),
        ({"network": 7}, 7, "network"),
        ({"network": "a b"}, 7, "'a b'"),
        ({"name": ""}, 7, "name"),
        ({"name": "../x"}, 7, "name"),
        ({"create": "yes", "name": "missing"}, 7, "create"),
        ({"create": {"name": "x"}, "name": "missing"}, 7, "create"),
        ({"create": {"driver": "magic"}, "name": "missing"}, 7, "magic"),
        ({"create": {"colour": "red"}, "name": "missing"}, 7, "colour"),
        ({"args": {"cni": {"labels": [{"key": 1}]}}}, 7, "label"),
        ({"args": 1}, 7, "args"),
        ({"prevResult": []}, 7, "prevResult"),
        ({"prevResult": {"ips": 1}}, 7, "prevResult"),
        ({"dns": []}, 7, "dns"),
        ({"dns": {"nameservers": 5}}, 7, "dns.nameservers"),
        ({"dns": {"domain": ["example.org"]}}, 7, "dns.domain"),
        ({"dns": {"servers": ["10.0.0.53"]}}, 2, "nameservers"),
        ({"runtimeConfig": {"dns": {"servers": [5]}}}, 7, "runtimeConfig.dns.servers"),
        ({"runtimeConfig": {"dns": {"nameservers": ["10.0.0.53"]}}}, 2, "servers"),
    ],
)
async def test_a_bad_configuration_is_refused_and_nothing_changes(
    lab: Lab, runtime: Runtime, netns: Path, more: dict[str, Any], code: int, words: str
) -> None:
    answer = await runtime.call("ADD", "c1", netns, **more)
    assert answer.code == code, answer.said
    assert words in str(answer.said)
    assert [e async for e in lab.client.endpoints()] == []
    assert [n["name"] async for n in lab.client.networks()] == ["pods"]
    (await runtime.call("DEL", "c1", netns)).require_quiet()


@pytest.mark.parametrize("path", ["/run/netns/nowhere", "/etc/hostname", "/proc/self/ns/net", "/proc/1/ns/mnt"])
async def test_what_is_no_namespace_of_a_container_is_refused(runtime: Runtime, path: str) -> None:
    answer = await runtime.call("ADD", "c1", path)
    assert answer.code == 4
    (await runtime.call("DEL", "c1", path)).require_quiet()


async def test_check_without_a_result_or_of_an_unknown_container_is_refused(runtime: Runtime, netns: Path) -> None:
    assert (await runtime.call("CHECK", "c1", netns)).code == 7
    assert (await runtime.call("CHECK", "c1", netns, prevResult={"interfaces": []})).code == 110


async def test_a_configuration_that_no_worker_reads_is_told_so(runtime: Runtime, netns: Path) -> None:
    answer = await runtime.call("ADD", "c1", netns, args={"long": "\u00fc" * 20_000})
    assert answer.code == 6
    assert "65536" in answer.message


async def test_without_a_worker_it_is_to_be_tried_again(away: Runtime, netns: Path) -> None:
    for command in ("ADD", "DEL", "CHECK", "GC"):
        answer = await away.call(command, "c1", netns, cniVersion="1.0.0")
        assert answer.code == 11
        assert str(away.socket) in answer.message
        assert answer.said is not None
        assert answer.said["cniVersion"] == "1.0.0"
    assert (await away.call("STATUS")).code == 50


@pytest.mark.parametrize(
    "message",
    [
        {"op": "cni"},
        {"op": "cni", "env": 1, "config": {}},
        {"op": "cni", "env": {}, "config": []},
        {
            "op": "cni",
            "env": {"CNI_COMMAND": "STATUS"},
            "config": {"cniVersion": "1.1.0", "name": "x"},
            "kept": ["1"],
        },
        {"op": "netavark"},
        {"op": "netavark", "command": 1, "netns": "", "input": {}},
    ],
)
async def test_what_no_program_of_ours_sends_is_refused(lab: Lab, message: dict[str, Any]) -> None:
    try:
        answer = await lab.hosts["h1"].local.request(message)
    except Invalid:
        return
    assert answer["failed"]


async def test_the_socket_may_come_from_the_environment(runtime: Runtime) -> None:
    given = {key: value for key, value in runtime.config().items() if key != "socket"}
    environment = {"CNI_COMMAND": "STATUS", "KVNET_SOCKET": str(runtime.socket)}
    (await run(runtime.program, json.dumps(given).encode(), environment)).require_quiet()
    answer = await run(runtime.program, json.dumps(given).encode(), {"CNI_COMMAND": "STATUS"})
    assert "/run/kvnet/worker.sock" in answer.message
