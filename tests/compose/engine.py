"""The Docker that the cluster runs on: the one that DOCKER_HOST names, or our own, in namespaces that end with it.

Our own starts empty, reaches no network but its containers', and is gone with everything in it when it is closed: it is
made from Debian's packages (`tests/docker/install`), with images of `tests.compose.images`. On a given one, images that
it lacks are pulled; where no registry answers they are made, and what was not there before is removed again.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kvnet.errors import KvnetError, Unfit
from lab import namespaces, processes
from lab.docker_hosts import CGROUPS, HOLDER, STOP_SECONDS, UNSHARED
from lab.lab import until
from lab.processes import Process
from tests.compose.images import Image
from tests.docker import programs
from tests.lab.coexistence.programs import ROOT as NEIGHBOURS
from worker.kernel.namespaces import entered, open_namespace

COMMAND_SECONDS = 60.0
IMPORT_SECONDS = 120.0
PULL_SECONDS = 300.0
# Of what the process inherits, nothing may lead compose to another file, project or store.
NOT_INHERITED = ("COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME", "KVNET_STORE", "KVNET_CONTROLLER")


class CommandFailed(KvnetError):
    """A command ended with an error; `detail` has its words."""

    code = "command-failed"


@dataclass(slots=True)
class Engine:
    """`compose`: the words that compose begins with. `made`: images that were not there before.

    `holder`: the first process in the namespaces of an engine of our own.
    """

    docker: str
    compose: Sequence[str]
    environment: Mapping[str, str]
    holder: Process | None = None
    made: list[str] = field(default_factory=list)

    @property
    def is_ours(self) -> bool:
        return self.holder is not None

    async def run(self, *command: str, seconds: float = COMMAND_SECONDS, **environment: str) -> str:
        """What it prints on stdout.

        Raises:
            CommandFailed: with what it said; or nothing came of it in time.
        """
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**inherited, **self.environment, **environment},
        )
        try:
            async with asyncio.timeout(seconds):
                said, complained = await child.communicate()
        except TimeoutError:
            raise CommandFailed(f"{' '.join(command)}: nothing within {seconds:g} s") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode:
            words = f"{said.decode(errors='replace')}\n{complained.decode(errors='replace')}".strip()
            raise CommandFailed(f"{' '.join(command)} ended with {child.returncode}: {words}")
        return said.decode(errors="replace").strip()

    async def need(self, image: Image) -> None:
        """The image is there: it was, or is pulled, or is made."""
        if await self.has(image.name):
            return
        if self.is_ours or not await self._pulled(image.name):
            changes = [word for change in image.changes for word in ("--change", change)]
            archive = await asyncio.to_thread(image.make)
            await self.run(self.docker, "import", *changes, str(archive), image.name, seconds=IMPORT_SECONDS)
        self.made.append(image.name)

    async def forget(self, *images: str) -> None:
        """What was made here, and the images given, go."""
        for name in (*images, *reversed(self.made)):
            with suppress(CommandFailed):
                await self.run(self.docker, "rmi", name)
        self.made.clear()

    async def has(self, name: str) -> bool:
        try:
            await self.run(self.docker, "image", "inspect", name)
        except CommandFailed:
            return False
        return True

    async def _pulled(self, name: str) -> bool:
        try:
            await self.run(self.docker, "pull", "--quiet", name, seconds=PULL_SECONDS)
        except CommandFailed as error:
            print(f"{name} cannot be pulled, so it is made here: {error.detail}", file=sys.stderr)
            return False
        return True


@asynccontextmanager
async def given_engine() -> AsyncIterator[Engine]:
    """Of DOCKER_HOST, with the compose that is installed, or else the one that the tests unpack.

    Raises:
        Unfit: it does not answer.
    """
    docker = shutil.which("docker") or str(NEIGHBOURS / "usr" / "bin" / "docker")
    engine = Engine(docker, (docker, "compose"), {})
    try:
        await engine.run(docker, "version")
    except (CommandFailed, OSError) as error:
        raise Unfit(
            f"the Docker that DOCKER_HOST names does not answer: {error}",
            fix="start it, name another one, or unset DOCKER_HOST: as root it needs no Docker",
        ) from None
    try:
        await engine.run(*engine.compose, "version")
    except CommandFailed:
        if compose := shutil.which("docker-compose"):
            engine.compose = (compose,)
        else:
            engine.compose, engine.environment = programs.COMPOSE, _unpacked_compose("")
    try:
        yield engine
    finally:
        await engine.forget()


@asynccontextmanager
async def own_engine(folder: Path) -> AsyncIterator[Engine]:
    """In namespaces of its own. As long as it lives this thread is in its network, where the published ports are."""
    found = programs.docker(folder)
    cgroup = f"/kvnet-compose-{os.getpid()}"
    inner = folder / "engine"
    shutil.copytree("/etc", inner / "etc", symlinks=True, ignore=_unreadable, ignore_dangling_symlinks=True)
    (inner / "etc/docker").mkdir(exist_ok=True)
    (inner / "etc/docker/daemon.json").write_text(json.dumps(_settings(inner, cgroup)))
    netns = namespaces.create(cgroup[1:])
    holder = await _started_holder(inner, netns)
    network = open_namespace(str(netns))
    try:
        daemon = await processes.start(
            "dockerd", [found.dockerd], logs=folder, inside=holder.pid, environment=found.environment
        )
        socket = f"unix:///proc/{holder.pid}/root/run/docker.sock"
        libraries = found.environment["LD_LIBRARY_PATH"]
        environment = {**found.environment, **_unpacked_compose(libraries), "DOCKER_HOST": socket}
        environment["DOCKER_CONFIG"] = str(inner)
        engine = Engine(found.docker, programs.COMPOSE, environment, holder)
        await until(lambda: _answers(engine), "our own dockerd answers", seconds=COMMAND_SECONDS, watched=daemon)
        try:
            with entered(network):  # across awaits, which is fine as long as nobody else's tasks run in this loop
                yield engine
        finally:
            await daemon.stop(STOP_SECONDS)
    finally:
        await holder.kill()
        os.close(network)
        namespaces.destroy(netns)
        await until(lambda: asyncio.to_thread(_is_removed, cgroup), "the engine's cgroups are gone")


def _settings(inner: Path, cgroup: str) -> dict[str, object]:
    return {
        "data-root": str(inner / "docker"),
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": cgroup,
        "hosts": ["unix:///run/docker.sock"],
        "shutdown-timeout": 5,
    }


async def _started_holder(inner: Path, netns: Path) -> Process:
    command = ["unshare", *UNSHARED, sys.executable, "-I", "-S", str(HOLDER), "engine", str(inner)]
    holder = await processes.start("holder", command, logs=inner, netns=netns, forks=True, environment={})

    async def is_ready() -> bool:
        return "ready" in holder.log.read_text()

    await until(is_ready, "the engine's namespaces are there", watched=holder)
    return holder


def _unpacked_compose(libraries: str) -> dict[str, str]:
    paths = [libraries, programs.LIBRARIES] if libraries else [programs.LIBRARIES]
    return {"PYTHONPATH": programs.COMPOSE_PATH, "LD_LIBRARY_PATH": ":".join(paths)}


async def _answers(engine: Engine) -> bool:
    try:
        await engine.run(engine.docker, "version")
    except CommandFailed:
        return False
    return True


def _unreadable(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "docker" or not os.access(os.path.join(folder, name), os.R_OK)]


def _is_removed(cgroup: str) -> bool:
    """Removes what is empty of it, in every hierarchy."""
    roots = [CGROUPS / cgroup[1:], *(folder / cgroup[1:] for folder in CGROUPS.iterdir() if folder.is_dir())]
    for root in roots:
        for folder, _, _ in os.walk(root, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
    return not any(root.exists() for root in roots)
