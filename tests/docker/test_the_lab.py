"""The lab of Docker hosts itself: hosts that are each their own, and nothing left when it is closed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab import namespaces
from lab.docker_hosts import CGROUPS, Programs, open_docker_lab

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


def traces(worlds: set[int]) -> list[str]:
    """Of the hosts on this machine: processes in their worlds, mounts, cgroups."""
    processes = [pid for pid in os.listdir("/proc") if pid.isdigit() and world_of(pid) in worlds]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if "docker" in line]
    return processes + mounts + [str(path) for path in CGROUPS.glob(f"**/kvnet-lab-{os.getpid()}")]


def world_of(pid: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return 0


async def test_every_host_has_a_docker_of_its_own_and_nothing_is_left(
    docker_programs: Programs, tmp_path: Path
) -> None:
    worlds: set[int] = set()
    async with open_docker_lab(tmp_path, docker_programs, hosts=2) as lab:
        for name, host in lab.hosts.items():
            await host.start()
            await host.docker("run", "-d", "--name", "one", "busybox")
            assert await host.docker("info", "-f", "{{.Name}}") == name
            assert await host.docker("exec", "one", "wget", "-qO-", "http://127.0.0.1:8080") != ""
            assert host.holder is not None
            worlds.add(world_of(str(host.holder.pid)))
        boot = (lab.hosts["h1"].root / "proc/sys/kernel/random/boot_id").read_text()

        host = await lab.reboot("h1")
        await host.start()

        assert "Exited (255)" in await host.docker("ps", "-a", "--format", "{{.Names}}: {{.Status}}")
        assert (host.root / "proc/sys/kernel/random/boot_id").read_text() != boot
        await host.docker("start", "one")
        assert host.holder is not None
        worlds.add(world_of(str(host.holder.pid)))
        assert traces(worlds)
    assert traces(worlds) == []


def test_any_number_of_labs_share_the_names_of_namespaces_once() -> None:
    namespaces.share()
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()

    for _ in range(3):
        namespaces.share()

    assert len(Path("/proc/self/mountinfo").read_text().splitlines()) == len(mounts)
