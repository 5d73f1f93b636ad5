"""Podman as Debian 12 and 13 have it, unpacked into .tools, on one host of the lab, in a folder of its own.

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

TOOLS = Path(__file__).parents[2] / ".tools"
CONTAINERS = TOOLS / "containers" / "root"
BUSYBOX = CONTAINERS / "bin" / "busybox"
CNI_PLUGINS = CONTAINERS / "usr" / "lib" / "cni"
LIBRARIES = f"usr/lib/{os.uname().machine}-linux-gnu"
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
helper_binaries_dir = ["{root}/usr/lib/podman", "{root}/usr/libexec/podman"]
lock_type = "file"
runtime = "crun"
[engine.runtimes]
crun = ["{programs}/crun"]
[network]
network_backend = "{backend}"
{plugin_dirs} = ["{plugins}"]
network_config_dir = "{networks}"
"""


class PodmanFailed(Exception):
    """A command ended with an error: what it said."""


@dataclass(frozen=True, slots=True)
class Release:
    """`overlay`: its libraries are newer than the machine's and are laid over those."""

    root: Path
    backend: str
    plugin_dirs: str
    installer: str
    overlay: bool = False

    def environment(self) -> dict[str, str]:
        path = {"PATH": f"{self.root}/usr/bin:{os.environ['PATH']}"}
        return path if self.overlay else {**path, "LD_LIBRARY_PATH": f"{self.root}/{LIBRARIES}:{libraries()}"}

    def mounts(self) -> list[str]:
        lower = f"lowerdir={self.root}/{LIBRARIES}:/{LIBRARIES}"
        return [f"mount -t overlay none -o {lower} /{LIBRARIES}"] if self.overlay else []

    def wrap(self, folder: Path, *names: str) -> None:
        """Podman starts its helpers without the environment that tells where their libraries are."""
        folder.mkdir()
        needed = " ".join(f"{name}={value}" for name, value in self.environment().items() if name != "PATH")
        for name in names:
            program = folder / name
            program.write_text(f'#!/bin/sh\n{needed} exec {self.root}/usr/bin/{name} "$@"\n')
            program.chmod(0o755)


PODMAN4 = Release(CONTAINERS, "cni", "cni_plugin_dirs", "tests/docker/install")
PODMAN5 = Release(TOOLS / "podman5" / "root", "netavark", "netavark_plugin_dirs", "tests/cni/install", overlay=True)
# crun does not work where a second hierarchy of cgroups is beside the first one; and it needs none here.
HIDE_CGROUPS = "{ [ ! -d /sys/fs/cgroup/unified ] || mount -t tmpfs none /sys/fs/cgroup/unified; }"


@dataclass(frozen=True, slots=True)
class Podman:
    """`place`: a process whose mounts Podman has."""

    folder: Path
    netns: Path
    place: Process
    release: Release

    @classmethod
    async def on(cls, netns: Path, folder: Path, programs: Programs, release: Release = PODMAN4) -> Podman:
        """`folder`: empty, and short: it becomes part of sockets' names."""
        assert (release.root / "usr/bin/podman").exists(), f"podman is not there: run {release.installer}"
        plugins, networks = folder / "plugins", folder / "networks"
        plugins.mkdir(parents=True)
        networks.mkdir()
        release.wrap(folder / "programs", "conmon", "crun")
        if release is PODMAN4:
            for plugin in CNI_PLUGINS.iterdir():
                (plugins / plugin.name).symlink_to(plugin)
        (plugins / "kvnet-cni").symlink_to(programs.cni)
        (plugins / "kvnet").symlink_to(programs.netavark)
        places = {"root": release.root, "programs": folder / "programs", "plugins": plugins, "networks": networks}
        choice = {"backend": release.backend, "plugin_dirs": release.plugin_dirs}
        (folder / "containers.conf").write_text(CONFIG.format(**places, **choice))
        storage = {"driver": "vfs", "runroot": f"{folder}/run", "graphroot": f"{folder}/root"}
        lines = ["[storage]", *(f'{name} = "{value}"' for name, value in storage.items())]
        (folder / "storage.conf").write_text("\n".join(lines))
        make = " && ".join([HIDE_CGROUPS, *release.mounts(), "echo ready", "exec sleep inf"])
        words = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", make]
        place = await processes.start("podman-place", words, logs=folder)

        async def is_ready() -> bool:
            return "ready" in place.last_words()

        await until(is_ready, "the place is made", seconds=5.0, watched=place)
        return cls(folder, netns, place, release)

    def list_network(self, name: str, *plugins: dict[str, Any], version: str = "1.0.0") -> None:
        """As an administrator puts a list into /etc/cni/net.d."""
        text = json.dumps({"cniVersion": version, "name": name, "plugins": plugins})
        (self.folder / "networks" / f"10-{name}.conflist").write_text(text)

    async def run(self, name: str, *options: str, command: str = SERVE) -> str:
        """A container of its own root file system, in the background. Returns its id."""
        return await self.do(
            "run",
            "-d",
            "--name",
            name,
            *options,
            "--rootfs",
            str(make_rootfs(self.folder / f"rootfs-{name}")),
            "sh",
            "-c",
            command,
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
        inside = ["nsenter", f"--net={self.netns}", f"--mount=/proc/{self.place.pid}/ns/mnt", "--"]
        child = await asyncio.create_subprocess_exec(
            *(*inside, "podman", *place, *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **self.release.environment(),
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


def make_rootfs(made: Path) -> Path:
    """A root file system with nothing but busybox and its commands."""
    for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "run", "var"):
        (made / folder).mkdir(parents=True)
    shutil.copy(BUSYBOX, made / "bin/busybox")
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, timeout=10, check=True)
    for command in set(listed.stdout.split()) - {"busybox"}:
        (made / "bin" / command).symlink_to("busybox")
    (made / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    return made
