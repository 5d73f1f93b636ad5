"""A worker with the two capabilities of its unit, and no other, does the work of a day on the real kernel."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvnet.errors import MissingCapability
from lab import namespaces, processes
from lab.lab import Lab, open_lab, until
from lab.processes import KVNET
from worker.kernel.lowports import FIRST_FREE

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


def only(*capabilities: str) -> tuple[str, ...]:
    few = ",".join(["-all", *(f"+{one}" for one in capabilities)])
    return ("setpriv", f"--bounding-set={few}", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs", "--")


THE_WORKERS = only("net_admin", "sys_admin")
THE_HELPERS = only("net_raw", "sys_admin")
MASK = (1 << 12) | (1 << 21)  # CAP_NET_ADMIN, CAP_SYS_ADMIN
NAME_SERVER = "169.254.53.53"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, hosts=2) as made:
        await made.start_controller()
        yield made


async def start(lab: Lab, raw_sockets: Path) -> None:
    for name in lab.hosts:
        await lab.start_worker(name, under=THE_WORKERS, environment={"KVNET_RAW_SOCKETS": str(raw_sockets)})
    for name in lab.hosts:
        await lab.until_ready(name)


@pytest.fixture
async def helped(lab: Lab, tmp_path: Path) -> Lab:
    """With the helper of `kvnet-raw.service`."""
    place = tmp_path / "raw.sock"
    command = [*THE_HELPERS, *KVNET, "worker", "raw-sockets", "--listen-unix", str(place)]
    lab.others.append(await processes.start("raw", command, logs=tmp_path))

    async def is_there() -> bool:
        return place.is_socket()

    await until(is_there, "the helper listens", watched=lab.others[-1])
    await start(lab, place)
    return lab


def capabilities(pid: int) -> set[int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {int(line.split()[1], 16) for line in lines if line.startswith(("CapEff", "CapPrm", "CapBnd"))}


def address_of(netns: Path, name: str) -> str:
    """Asked of the name server, on port 53, by a plain question; "" if there is no answer."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    question = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
    with namespaces.open_socket(netns, socket.AF_INET, socket.SOCK_DGRAM, 0) as asked:
        asked.settimeout(2.0)
        asked.sendto(question, (NAME_SERVER, 53))
        answer = asked.recv(512)
    return socket.inet_ntoa(answer[-4:]) if struct.unpack_from(">H", answer, 6)[0] else ""


async def test_it_does_the_work_of_a_day(helped: Lab) -> None:
    lab = helped
    worker = lab.hosts["h1"].worker
    assert worker is not None
    assert capabilities(worker.pid) == {MASK}
    network = await lab.client.create_network({"name": "n", "driver": "overlay"})
    for name, host in (("a", "h1"), ("b", "h2")):
        await lab.add_workload(name, host, serve=True)
        await lab.attach("n", name, ports=[{"port": 8080, "host_port": 8088}] if name == "b" else [])
    await lab.until_applied(network["id"], lab.workloads["b"].endpoints["n"]["version"])

    assert (await lab.ping("a", lab.address_of("b", "n"))).ok
    assert (await lab.ping("a", lab.address_of("b", "n", family=6))).ok
    published = str(lab.hosts["h2"].port.underlay)
    await until(lambda: lab.answers("h1", published, 8088), "the published port answers")
    assert address_of(lab.workloads["a"].netns, "b") == lab.address_of("b", "n")
    found = await lab.client.test_connectivity({})
    assert found["ok"], found
    assert {one["status"] for one in (*found["links"], *found["endpoints"])} == {"ok"}, found
    assert found["links"]
    assert found["endpoints"]
    report = await lab.hosts["h1"].local.ask("doctor", {})
    checks = {check["id"]: check for check in report["checks"]}
    assert checks["kernel.capabilities"]["status"] == checks["kernel.raw_sockets"]["status"] == "ok"
    assert [one for one in checks.values() if one["status"] == "fail"] == []

    for name in ("a", "b"):
        await lab.detach("n", name)
    await lab.client.delete_network("n")
    assert (await lab.client.check())["ok"]


async def test_the_port_of_names_is_had_without_leaving_it_to_everybody(lab: Lab, tmp_path: Path) -> None:
    await start(lab, tmp_path / "nobody")
    setting = Path("/proc/sys") / FIRST_FREE

    def first_free() -> str:
        return setting.read_text().strip()

    assert first_free() == "1024"
    status = await lab.hosts["h1"].local.status()
    assert not [one for one in status["conditions"] if "dns" in one["reason"]]


async def test_without_the_helper_a_connectivity_test_says_why_there_is_none(lab: Lab, tmp_path: Path) -> None:
    await start(lab, tmp_path / "nobody")

    report = await lab.hosts["h1"].local.ask("doctor", {})
    check = next(one for one in report["checks"] if one["id"] == "kernel.raw_sockets")
    assert check["status"] == "warn"
    assert "kvnet-raw.socket" in check["fix"]
    found = await lab.client.test_connectivity({})
    assert "kvnet-raw.socket" in str(found)


async def test_a_process_that_may_not_be_looked_into_is_told_from_one_that_is_not_there(
    lab: Lab, tmp_path: Path
) -> None:
    await start(lab, tmp_path / "nobody")
    await lab.client.create_network({"name": "n", "driver": "overlay"})
    there = await lab.add_workload("a", "h1", serve=True)
    assert there.process is not None

    with pytest.raises(MissingCapability) as refusal:
        await lab.hosts["h1"].local.attach(network="n", netns=f"/proc/{there.process.pid}/ns/net", name="a")
    assert "ip netns attach" in refusal.value.fix
