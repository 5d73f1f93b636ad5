"""containerd as Debian has it, unpacked into .tools, on one host of the lab; its `ctr` puts containers on CNI networks.

It looks for lists and plugins where every installation has them, /etc/cni/net.d and /opt/cni/bin: in mounts of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import processes
from lab.lab import until
from lab.processes import Process
from tests.cni.calling import Programs
from tests.lab.coexistence.programs import ROOT, libraries

COMMAND_SECONDS = 60.0
CONFIG = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{folder}/c.sock"
"""
CGROUPS = Path("/sys/fs/cgroup")


class CtrFailed(Exception):
    """A command ended with an error: what it said."""


@dataclass(frozen=True, slots=True)
class Containerd:
    """`place`: a process whose mounts it has. `group`: of its containers."""

    folder: Path
    netns: Path
    place: Process
    daemon: Process
    group: str

    @classmethod
    async def on(cls, netns: Path, folder: Path, programs: Programs, listed: dict[str, Any]) -> Containerd:
        """`folder`: empty, and short; `listed`: the list of plugins."""
        lists, plugins = folder / "etc/cni/net.d", folder / "opt/cni/bin"
        for made in (lists, plugins):
            made.mkdir(parents=True)
        (lists / "10-list.conflist").write_text(json.dumps(listed))
        (plugins / "kvnet-cni").symlink_to(programs.cni)
        (folder / "config.toml").write_text(CONFIG.format(folder=folder))
        mounts = [f"mount -t overlay none -o lowerdir={folder}/{name}:/{name} /{name}" for name in ("etc", "opt")]
        make = " && ".join([*mounts, "echo ready", "exec sleep inf"])
        words = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", make]
        place = await processes.start("containerd-place", words, logs=folder)

        async def is_ready() -> bool:
            return "ready" in place.last_words()

        await until(is_ready, "the place is made", seconds=5.0, watched=place)
        inside = _inside(netns, place)
        command = [*inside, str(ROOT / "usr/bin/containerd"), "--config", str(folder / "config.toml")]
        daemon = await processes.start("containerd", command, logs=folder, environment=_environment())
        made = cls(folder, netns, place, daemon, f"kvnet-{os.getpid()}-{folder.name}")
        await until(made.answers, "containerd answers", watched=daemon)
        return made

    async def answers(self) -> bool:
        try:
            await self.ctr("version")
        except CtrFailed:
            return False
        return True

    async def run(self, name: str, rootfs: Path, command: str) -> str:
        """A container that runs the command and is gone. Returns what it said."""
        options = ["--rm", "--cni", "--env", "PATH=/bin", "--cgroup", f"/{self.group}/{name}", "--rootfs"]
        return await self.ctr("run", *options, str(rootfs), name, "/bin/sh", "-c", command)

    async def ctr(self, *words: str) -> str:
        """
        Raises:
            CtrFailed: it says so.
        """
        child = await asyncio.create_subprocess_exec(
            *(*_inside(self.netns, self.place), str(ROOT / "usr/bin/ctr"), "-a", f"{self.folder}/c.sock", *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        async with asyncio.timeout(COMMAND_SECONDS):
            said, cried = await child.communicate()
        if child.returncode:
            raise CtrFailed(f"ctr {' '.join(words)}: {cried.decode().strip()}")
        return said.decode().strip()

    async def close(self) -> None:
        await self.daemon.stop()
        await self.place.kill()
        _remove_cgroups(self.group)


def _remove_cgroups(group: str) -> None:
    for folder in CGROUPS.glob(f"*/{group}"):
        with suppress(OSError):
            folder.rmdir()


def _inside(netns: Path, place: Process) -> list[str]:
    return ["nsenter", f"--net={netns}", f"--mount=/proc/{place.pid}/ns/mnt", "--"]


def _environment() -> dict[str, str]:
    path = f"{ROOT}/usr/bin:{ROOT}/usr/sbin:{os.environ['PATH']}"
    return {"PATH": path, "LD_LIBRARY_PATH": libraries()}
