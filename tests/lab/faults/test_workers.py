"""A worker on a host that is not as it should be: what it says, what it leaves alone, and how the rest goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cli.words import problems
from datapath.names import bridge_name, veth_name, vxlan_name
from kvnet.errors import AlreadyAttached, Conflicting, ForeignObject, HostFenced, Invalid, KvnetError, NamespaceNotFound
from lab import namespaces, processes
from lab.lab import Lab, environment, open_lab, until
from lab.processes import KVNET, Process
from tests.lab.eye import by_hand, everything, look

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

DEADLINE_S = 15.0
VXLAN_PORT = 4789


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """h1 and h2 are sound; h3 has no worker yet."""
    async with open_lab(tmp_path_factory.mktemp("lab"), hosts=3) as made:
        await made.start_controller()
        for name in ("h1", "h2"):
            await made.start_worker(name)
        for name in ("h1", "h2"):
            await made.until_ready(name)
        yield made


async def kvnet(lab: Lab, host: str, *arguments: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run the command on a host until it ends. Its exit code and what it said."""
    command = ["nsenter", f"--net={lab.hosts[host].netns}", "--", *prefix, *KVNET, *arguments]
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment(lab)
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            said, _ = await child.communicate()
    except TimeoutError:
        child.kill()
        said, _ = await child.communicate()
        pytest.fail(f"it went on: {said.decode()}")
    return child.returncode or 0, said.decode()


def options(lab: Lab, tmp_path: Path, **changed: str) -> list[str]:
    given = {
        "controller": lab.controller_url,
        "host": "h3",
        "underlay": str(lab.hosts["h3"].port.underlay),
        "state-dir": str(tmp_path / "state"),
        "socket": str(tmp_path / "w.sock"),
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    return ["worker", *(part for name, value in given.items() for part in (f"--{name}", value))]


async def hosts(lab: Lab) -> set[str]:
    return {host["name"] async for host in lab.client.hosts()}


REFUSALS: dict[str, tuple[dict[str, str], int, str]] = {
    "an underlay address of another host": ({"underlay": "192.0.2.99"}, 3, "there are: 198.18.0.3"),
    "an underlay that is loopback": ({"underlay": "127.0.0.1"}, 2, "cannot be reached by peers"),
    "an underlay that is none": ({"underlay": "x; reboot"}, 2, "is neither an IP address nor the name of a device"),
    "a host name with syntax": ({"host": "a;b"}, 2, "is not a name"),
    "a host name that is a path": ({"host": "../h3"}, 2, "is not a name"),
    "a host name with a newline": ({"host": "h3\n"}, 2, "is not a name"),
    "a controller without a scheme": ({"controller": "h1:7480"}, 2, "is not the URL of a controller"),
    "a controller of another scheme": ({"controller": "ftp://h1"}, 2, "is not the URL of a controller"),
    "a file for a controller": ({"controller": "sqlite:///kvnet.db"}, 2, "is not the URL of a controller"),
    "no controller": ({"controller": ""}, 2, "is not the URL of a controller"),
    "a controller without a host": ({"controller": "http://"}, 2, "http://host:port"),
    "a store that there is not": ({"store": "redis://h1:6379"}, 2, "there is no store called 'redis'"),
    "a store without a place": ({"store": "etcd:///kvnet"}, 2, "is not HOST or HOST:PORT"),
    "a store URL with a parameter of another": ({"store": "etcd://h1/kvnet?auth=sasl"}, 2, "unknown parameter 'auth'"),
    "a store of its own": ({"store": "memory://"}, 2, "this worker's alone"),
    "a store in no directory": ({"store": "sqlite:///nowhere/kvnet.db"}, 5, "mkdir -p /nowhere"),
    "a state directory in a file system without files": ({"state_dir": "/proc/nowhere"}, 1, "cannot be used"),
    "a time to live that is too short": ({"ttl": "1s"}, 2, "10 to 3600"),
    "a time to live of centuries": ({"ttl": "100000d"}, 2, "10 to 3600"),
    "a socket in a file system without sockets": ({"socket": "/proc/nowhere/w.sock"}, 1, "--socket"),
    "a socket path that is too long": ({"socket": "/tmp/" + "x" * 120}, 2, "too long"),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_worker_that_cannot_work_says_why_and_ends(lab: Lab, tmp_path: Path, case: str) -> None:
    changed, code, says = REFUSALS[case]

    ended, said = await kvnet(lab, "h3", *options(lab, tmp_path, **changed))

    assert says in said
    assert "Fix:" in said
    assert "Traceback" not in said
    assert ended == code, said
    assert "h3" not in await hosts(lab)
    assert not (tmp_path / "w.sock").exists()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
@pytest.mark.parametrize("missing", ["net_admin", "sys_admin"])
async def test_a_worker_without_a_capability_does_not_start(lab: Lab, tmp_path: Path, missing: str) -> None:
    prefix = ("setpriv", f"--bounding-set=-{missing}", f"--inh-caps=-{missing}")
    before = everything(lab.hosts["h3"].netns)

    ended, said = await kvnet(lab, "h3", *options(lab, tmp_path), prefix=prefix)

    assert ended == 1, said
    assert f"CAP_{missing.upper()}" in said
    assert "Traceback" not in said
    assert everything(lab.hosts["h3"].netns) == before
    assert "h3" not in await hosts(lab)


@pytest.mark.parametrize("kind", ["read-only", "full"])
async def test_a_state_directory_that_cannot_be_written_is_told(lab: Lab, tmp_path: Path, kind: str) -> None:
    mounted = tmp_path / "state"
    mounted.mkdir()
    how = {"read-only": "ro", "full": "size=4k,nr_inodes=2"}[kind]
    await asyncio.to_thread(subprocess.run, ["mount", "-t", "tmpfs", "-o", how, "none", str(mounted)], check=True)
    try:
        if kind == "full":
            (mounted / "other").touch()
        ended, said = await kvnet(lab, "h3", *options(lab, tmp_path))
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", str(mounted)], check=True)

    assert ended == 1
    assert {"read-only": "Read-only file system", "full": "No space left"}[kind] in said
    assert "--state-dir" in said


async def test_what_another_worker_uses_is_not_taken_from_it(lab: Lab, tmp_path: Path) -> None:
    first = lab.hosts["h1"]

    ended, said = await kvnet(lab, "h3", *options(lab, tmp_path, state_dir=str(first.state_dir)))
    assert (ended, "another worker uses" in said) == (1, True), said
    ended, said = await kvnet(lab, "h3", *options(lab, tmp_path, socket=str(first.socket)))
    assert (ended, "a worker is answering" in said) == (4, True), said
    precious = tmp_path / "precious"
    precious.write_text("mine")
    ended, said = await kvnet(lab, "h3", *options(lab, tmp_path, socket=str(precious)))
    assert (ended, precious.read_text()) == (1, "mine"), said
    assert (await first.local.status())["ready"]


async def start(lab: Lab, tmp_path: Path, **changed: str) -> Process:
    command = [*KVNET, *options(lab, tmp_path, **changed)]
    return await processes.start("other", command, logs=tmp_path, netns=lab.hosts["h3"].netns)


async def test_a_socket_file_that_a_dead_worker_left_is_replaced(lab: Lab, tmp_path: Path) -> None:
    for _ in range(2):
        process = await start(lab, tmp_path, host="h4")
        await until(partial(_answers, tmp_path), "it answers", watched=process)
        await process.kill()
        assert (tmp_path / "w.sock").exists()


async def _answers(tmp_path: Path) -> bool:
    try:
        await _worker(tmp_path).status()
    except KvnetError:
        return False
    return True


def _worker(tmp_path: Path) -> Any:
    from kvnet.local import WorkerClient

    return WorkerClient(str(tmp_path / "w.sock"))


async def test_of_two_workers_of_one_name_the_second_touches_nothing_and_says_so(lab: Lab, tmp_path: Path) -> None:
    """The networks of the first one must not appear on the second one's host, nor its address in the store."""
    network = await lab.client.create_network({"name": "twins"})
    workload = await lab.add_workload("twin", "h1")
    await lab.attach("twins", "twin")
    process = await start(lab, tmp_path, host="h1")

    async def is_told() -> bool:
        if not await _answers(tmp_path):
            return False
        return "host-name-taken" in str((await _worker(tmp_path).status())["conditions"])

    await until(is_told, "the second worker says that the name is taken", watched=process)
    other = namespaces.create("other")
    with pytest.raises(HostFenced, match="another worker holds the name h1"):
        await _worker(tmp_path).attach(network="twins", netns=str(other), name="c")
    with pytest.raises(KvnetError, match="another worker holds this host's name"):
        await _worker(tmp_path).plan()

    assert not look(lab.hosts["h3"].netns).links
    assert (await lab.client.get_host("h1"))["underlay"] == str(lab.hosts["h1"].port.underlay)
    assert (await lab.hosts["h1"].local.status())["ready"]
    assert vxlan_name(network["id"]) in look(lab.hosts["h1"].netns).links
    await process.stop()
    namespaces.destroy(other)
    await lab.detach("twins", "twin")
    await lab.remove_workload(workload.name)
    await lab.client.delete_network("twins")


async def test_a_worker_that_finds_no_controller_says_so_and_claims_nothing(lab: Lab, tmp_path: Path) -> None:
    process = await start(lab, tmp_path, controller="http://127.0.0.1:1")
    await until(partial(_answers, tmp_path), "it answers", watched=process)
    lonely = namespaces.create("lonely")

    with pytest.raises(KvnetError, match=r"http://127\.0\.0\.1:1") as refusal:
        await _worker(tmp_path).attach(network="n", netns=str(lonely), name="c")
    assert refusal.value.code == "controller-unreachable"
    assert not look(lab.hosts["h3"].netns).links
    await process.stop()
    namespaces.destroy(lonely)


@pytest.fixture
async def network(lab: Lab, request: pytest.FixtureRequest) -> AsyncIterator[dict[str, Any]]:
    """A network and a workload `c` on h1; at the end everything has to be as before."""
    made = dict(await lab.client.create_network({"name": "net"}))
    before = everything(lab.hosts["h1"].netns)
    await lab.add_workload("c", "h1")
    yield made
    local = lab.hosts["h1"].local
    await local.detach(network="net", netns=str(lab.workloads["c"].netns))

    async def is_released() -> bool:
        there = [e async for e in lab.client.endpoints(network="net")]
        return not there and everything(lab.hosts["h1"].netns) == before

    await until(is_released, "nothing is left in the kernel and the store", seconds=5)
    await lab.remove_workload("c")
    await lab.client.delete_network("net")


def by_ip(lab: Lab, *words: str, **link: Any) -> None:
    by_hand(lab.hosts["h1"].netns, lambda ip: ip.link(*words, **link))


async def conditions(lab: Lab, network: str) -> list[str]:
    of_network = problems((await lab.client.get_network(network))["status"])
    of_host = {c["reason"] for c in problems((await lab.client.get_host("h1"))["status"])}
    return [c["reason"] for c in of_network if c["host"] == "h1" and c["reason"] in of_host]


async def test_a_foreign_bridge_of_our_name_is_told_and_left_alone(lab: Lab, network: dict[str, Any]) -> None:
    name = bridge_name(network["id"])
    by_ip(lab, "add", ifname=name, kind="bridge")
    index = everything(lab.hosts["h1"].netns).links[name]

    with pytest.raises(ForeignObject, match=name) as refusal:
        await lab.attach("net", "c")
    assert refusal.value.fix
    assert everything(lab.hosts["h1"].netns).links[name] == index
    await _others_go_on(lab)
    by_ip(lab, "del", ifname=name)
    await lab.attach("net", "c")


async def test_a_foreign_tunnel_with_our_vni_is_told_and_left_alone(lab: Lab, network: dict[str, Any]) -> None:
    local = str(lab.hosts["h1"].port.underlay)
    foreign = {"vxlan_id": network["vni"], "vxlan_port": VXLAN_PORT, "vxlan_local": local}
    by_ip(lab, "add", ifname="theirs", kind="vxlan", **foreign)

    with pytest.raises(ForeignObject, match=f"VNI {network['vni']} is used by theirs"):
        await lab.attach("net", "c")
    assert "theirs" in everything(lab.hosts["h1"].netns).links
    await _others_go_on(lab)
    by_ip(lab, "del", ifname="theirs")
    await lab.attach("net", "c")


async def test_a_device_that_is_swapped_for_a_foreign_one_is_seen_by_everybody_and_heals(
    lab: Lab, network: dict[str, Any]
) -> None:
    await lab.attach("net", "c")
    name = vxlan_name(network["id"])

    def swap(ip: Any) -> None:
        ip.link("set", ifname=name, state="down")
        ip.link("set", ifname=name, net_ns_fd=str(lab.hosts["h3"].netns))
        ip.link("add", ifname=name, kind="bridge")

    by_hand(lab.hosts["h1"].netns, swap)

    async def is_told() -> bool:
        return "foreign-object" in await conditions(lab, "net")

    async def is_well() -> bool:
        return not await conditions(lab, "net") and name in look(lab.hosts["h1"].netns).links

    try:
        await until(is_told, "the network and the host show the condition", seconds=5)
        await _others_go_on(lab)
    finally:
        by_ip(lab, "del", ifname=name)
        by_hand(lab.hosts["h3"].netns, lambda ip: ip.link("del", ifname=name))
    await until(is_well, "the condition goes with its cause", seconds=10)


async def test_a_foreign_device_in_the_place_of_an_interface_leaks_nothing(lab: Lab, network: dict[str, Any]) -> None:
    name = veth_name("wanted")
    by_ip(lab, "add", ifname=name, kind="bridge")

    async def is_released() -> bool:
        return [e["id"] async for e in lab.client.endpoints(network="net")] == []

    try:
        with pytest.raises(ForeignObject, match=f"{name} .* not kvnet's"):
            await lab.attach("net", "c", id="wanted")
        await until(is_released, "the endpoint is released", seconds=3)
        assert name in everything(lab.hosts["h1"].netns).links
    finally:
        by_ip(lab, "del", ifname=name)


async def _others_go_on(lab: Lab) -> None:
    await lab.client.create_network({"name": "other-net"})
    await lab.add_workload("d", "h1")
    await lab.attach("other-net", "d")
    await lab.detach("other-net", "d")
    await lab.remove_workload("d")
    await lab.client.delete_network("other-net")


async def test_only_a_namespace_of_its_own_can_be_attached(lab: Lab, tmp_path: Path, network: dict[str, Any]) -> None:
    worker = lab.hosts["h1"].worker
    assert worker is not None
    plain, fifo = tmp_path / "plain", tmp_path / "fifo"
    plain.write_text("")
    os.mkfifo(fifo)
    host = everything(lab.hosts["h1"].netns)
    nothing = ["/run/netns/nope", "nope", "red;id", "-red", "$(id)", "/dev/null", str(plain), str(fifo), str(tmp_path)]
    nothing += ["/proc/self/ns/mnt", "/proc/self/ns/user", "/proc/self/fd/0", str(lab.hosts["h1"].socket), ".."]
    for path in nothing:
        with pytest.raises(NamespaceNotFound):
            await lab.hosts["h1"].local.attach(network="net", netns=path, name="c")
    for path in ("a\x00b", "", "x" * 5000, "red\n", "../c", "./c", "\x1b[2J"):
        with pytest.raises(Invalid):
            await lab.hosts["h1"].local.attach(network="net", netns=path, name="c")
    own = [str(lab.hosts["h1"].netns), f"/proc/{worker.pid}/ns/net", "/proc/self/ns/net", "/proc/thread-self/ns/net"]
    for path in own:
        with pytest.raises(Invalid, match="the host's own"):
            await lab.hosts["h1"].local.attach(network="net", netns=path, name="c")
    assert everything(lab.hosts["h1"].netns) == host
    assert [e async for e in lab.client.endpoints(network="net")] == []


INTERFACES = ["lo", "all", "default", "eth0/..", "..", "a" * 16, "eth 0", "eth0;id", "$(id)", "%d", "eth%d", "é", "a:b"]


async def test_an_interface_name_that_cannot_be_is_refused(lab: Lab, network: dict[str, Any]) -> None:
    for name in [*INTERFACES, "-a", "eth0\n", "eth0\x00", ".hidden"]:
        with pytest.raises(Invalid) as refusal:
            await lab.attach("net", "c", interface=name)
        assert refusal.value.errors[0].pointer == "/interface"
    assert [e async for e in lab.client.endpoints(network="net")] == []


async def test_twice_is_told_and_changes_nothing(lab: Lab, network: dict[str, Any]) -> None:
    """Attach twice, take a name that is taken, delete while attached, detach twice."""
    local, netns = lab.hosts["h1"].local, str(lab.workloads["c"].netns)
    first = (await lab.attach("net", "c"))["endpoint"]
    there = everything(lab.hosts["h1"].netns)

    with pytest.raises(AlreadyAttached, match="attached to net") as refusal:
        await lab.attach("net", "c")
    assert first["id"] in refusal.value.fix
    with pytest.raises(Conflicting, match="has an interface eth0 already"):
        await local.attach(network="net", netns=netns, name="d", interface="eth0")
    with pytest.raises(Conflicting, match="c on h1"):
        await lab.client.delete_network("net")
    assert everything(lab.hosts["h1"].netns) == there
    assert len([e async for e in lab.client.endpoints(network="net")]) == 1

    assert (await local.detach(netns=netns))["detached"] == [first["id"]]
    assert (await local.detach(netns=netns)) == {"detached": [], "queued": []}
    for nothing in ({}, {"network": "net"}):
        with pytest.raises(Invalid):
            await local.detach(**nothing)


NAMES = ["a;b", "$(id)", "../a", "a\nb", "a\x00b", "ünï", "x" * 65, "a'b", '"', "-a", " "]


async def test_names_with_syntax_do_not_reach_the_kernel(lab: Lab, network: dict[str, Any]) -> None:
    plain = {"op": "attach", "network": "net", "netns": str(lab.workloads["c"].netns), "name": "c"}
    fields = ("network", "name", "hostname", "id", "mac", "address", "address6")
    wrong: list[dict[str, Any]] = [{field: text} for text in NAMES for field in fields]
    wrong += [{"aliases": [text]} for text in NAMES] + [{"x" + text: 1} for text in NAMES]
    wrong += [{"labels": {"k": 1}}, {"labels": {"k": "\n"}}, {"aliases": "a"}, {"aliases": ["a"] * 33}]
    wrong += [{"wait": -1}, {"wait": 1e9}, {"wait": True}, {"wait": float("nan")}, {"wait": float("inf")}]
    for change in wrong:
        with pytest.raises(Invalid):
            await lab.hosts["h1"].local.request({**plain, **change})
    assert [e async for e in lab.client.endpoints(network="net")] == []
