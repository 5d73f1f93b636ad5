"""Podman as Debian has it, unpacked into .tools, on one host of the lab: a folder of its own for all it keeps.

Containers come from a root file system with nothing but busybox, so no image is needed. It runs in the network
namespace of the host, as root, in the world of the tests: its namespaces are where the worker sees them.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import processes
from lab.lab import until
from lab.processes import Process
from tests.cni.calling import Programs
from tests.lab.coexistence.programs import libraries

CONTAINERS = Path(__file__).parents[2] / ".tools" / "containers" / "root"
BUSYBOX = CONTAINERS / "bin" / "busybox"
CNI_PLUGINS = CONTAINERS / "usr" / "lib" / "cni"
LIBRARIES = CONTAINERS / "usr" / "lib" / "x86_64-linux-gnu"
COMMAND_SECONDS = 60.0
SERVE = "mkdir -p /www; hostname >/www/index.html; exec httpd -f -p 8080 -h /www"
CONFIG = """\
[containers]
default_sysctls = []
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
cgroups = "disabled"
[engine]
cgroup_manager = "cgroupfs"
conmon_path = ["{programs}/conmon"]
events_logger = "none"
helper_binaries_dir = ["{root}/usr/lib/podman"]
lock_type = "file"
runtime = "crun"
[engine.runtimes]
crun = ["{programs}/crun"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["{plugins}"]
network_config_dir = "{networks}"
"""


class PodmanFailed(Exception):
    """A command ended with an error: what it said."""


# crun does not work where a second hierarchy of cgroups is beside the first one; and it needs none here.
HIDE_CGROUPS = (
    "[ ! -d /sys/fs/cgroup/unified ] || mount -t tmpfs none /sys/fs/cgroup/unified; echo ready; exec sleep inf"
)


@dataclass(frozen=True, slots=True)
class Podman:
    """`place`: a process whose mounts Podman has."""

    folder: Path
    netns: Path
    place: Process

    @classmethod
    async def on(cls, netns: Path, folder: Path, programs: Programs) -> Podman:
        """`folder`: empty, and short: it becomes part of sockets' names."""
        assert (CONTAINERS / "usr/bin/podman").exists(), "podman is not there: run tests/docker/install"
        plugins, networks = folder / "plugins", folder / "networks"
        plugins.mkdir(parents=True)
        networks.mkdir()
        _wrap(folder / "programs", "conmon", "crun")
        for plugin in CNI_PLUGINS.iterdir():
            (plugins / plugin.name).symlink_to(plugin)
        (plugins / "kvnet-cni").symlink_to(programs.cni)
        places = {"root": CONTAINERS, "programs": folder / "programs", "plugins": plugins, "networks": networks}
        (folder / "containers.conf").write_text(CONFIG.format(**places))
        storage = {"driver": "vfs", "runroot": f"{folder}/run", "graphroot": f"{folder}/root"}
        lines = ["[storage]", *(f'{name} = "{value}"' for name, value in storage.items())]
        (folder / "storage.conf").write_text("\n".join(lines))
        words = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", HIDE_CGROUPS]
        place = await processes.start("podman-place", words, logs=folder)

        async def is_ready() -> bool:
            return "ready" in place.last_words()

        await until(is_ready, "the place is made", seconds=5.0, watched=place)
        return cls(folder, netns, place)

    def list_network(self, name: str, *plugins: dict[str, Any], version: str = "1.0.0") -> None:
        """As an administrator puts a list into /etc/cni/net.d."""
        text = json.dumps({"cniVersion": version, "name": name, "plugins": plugins})
        (self.folder / "networks" / f"10-{name}.conflist").write_text(text)

    def rootfs(self, name: str) -> Path:
        made = self.folder / f"rootfs-{name}"
        for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "run", "var"):
            (made / folder).mkdir(parents=True)
        shutil.copy(BUSYBOX, made / "bin/busybox")
        listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, timeout=10, check=True)
        for command in set(listed.stdout.split()) - {"busybox"}:
            (made / "bin" / command).symlink_to("busybox")
        (made / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
        return made

    async def run(self, name: str, *options: str, command: str = SERVE) -> str:
        """A container of its own root file system, in the background. Returns its id."""
        return await self.do(
            "run", "-d", "--name", name, *options, "--rootfs", str(self.rootfs(name)), "sh", "-c", command
        )

    async def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.do("inspect", name))[0]
        return found

    async def do(self, *words: str) -> str:
        """
        Raises:
            PodmanFailed: it says so.
        """
        place = ["--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run", "--tmpdir", f"{self.folder}/tmp"]
        path = f"{CONTAINERS}/usr/bin:{os.environ['PATH']}"
        child = await asyncio.create_subprocess_exec(
            *(
                "nsenter",
                f"--net={self.netns}",
                f"--mount=/proc/{self.place.pid}/ns/mnt",
                "--",
                "podman",
                *place,
                *words,
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                "PATH": path,
                "LD_LIBRARY_PATH": _libraries(),
                "CONTAINERS_CONF": f"{self.folder}/containers.conf",
                "CONTAINERS_STORAGE_CONF": f"{self.folder}/storage.conf",
                "HOME": str(self.folder),
            },
        )
        async with asyncio.timeout(COMMAND_SECONDS):
            said, cried = await child.communicate()
        if child.returncode:
            raise PodmanFailed(f"podman {' '.join(words)}: {cried.decode().strip()}")
        return said.decode().strip()

    async def remove_all(self) -> None:
        await self.do("rm", "--all", "--force", "--time", "0")
        for left in self.folder.glob("rootfs-*"):
            shutil.rmtree(left)

    async def close(self) -> None:
        await self.remove_all()
        await self.place.kill()


def _wrap(folder: Path, *names: str) -> None:
    """Podman starts its helpers without the environment that tells where their libraries are."""
    folder.mkdir()
    for name in names:
        program = folder / name
        program.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={_libraries()} exec {CONTAINERS}/usr/bin/{name} "$@"\n')
        program.chmod(0o755)


def _libraries() -> str:
    return f"{LIBRARIES}:{libraries()}"
