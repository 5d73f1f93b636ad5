"""Makes a laboratory's hosts into Docker hosts: each with a dockerd and the worker, in one world of their own.

What a real host has to itself the lab host has too (`lab.holder`): /run with Docker's and the worker's sockets, /etc
with daemon.json, process ids, cgroups. Everything in it ends with its first process, so nothing is left behind however
a test ends. Knows nothing of kvnet's plugin: Docker finds that by itself. Never touches the machine's own Docker.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kvnet.errors import KvnetError
from kvnet.http import HttpClient, Lost, NotSent, Target
from lab import namespaces, processes
from lab.lab import Host, Lab, open_lab, until
from lab.processes import Process

HOLDER = Path(__file__).with_name("holder.py")
PLUGIN = "run/docker/plugins/kvnet.sock"
UNIT = "docker"  # the socket's name, as in the socket unit
NAMES = "169.254.53.53"
IMAGE = "busybox"
# Ends at once on SIGTERM, which most shells as a first process do not; its page says who answered.
COMMAND = (
    "mkdir -p /www; hostname >/www/index.html; httpd -p 8080 -h /www; "
    "trap exit TERM; while :; do sleep 9 & wait $!; done"
)
CGROUPS = Path("/sys/fs/cgroup")
START_SECONDS = 60.0
COMMAND_SECONDS = 30.0
STOP_SECONDS = 20.0
API = "/v1.41"
UNSHARED = ("--mount", "--uts", "--pid", "--fork", "--kill-child", "--propagation", "unchanged")


class DockerFailed(KvnetError):
    """A `docker` command ended with an error; `detail` is what it said."""

    code = "docker-failed"


@dataclass(frozen=True, slots=True)
class Programs:
    """`environment`: PATH, and whatever else they need. `image`: a tar archive with a busybox, for `docker import`."""

    dockerd: str
    docker: str
    environment: Mapping[str, str]
    image: Path


@dataclass(slots=True)
class DockerHost:
    """`settings`: daemon.json beyond what the lab needs. `options`: of dockerd. `unit`: the plugin's socket, where it
    is there before the worker and while that is away, as a socket unit of systemd makes it.
    """

    host: Host
    programs: Programs
    folder: Path
    cgroup: str
    settings: dict[str, Any] = field(default_factory=dict)
    options: Sequence[str] = ()
    holder: Process | None = None
    daemon: Process | None = None
    unit: socket.socket | None = None

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def root(self) -> Path:
        """The host's own file system, seen from outside."""
        assert self.holder is not None, f"{self.name} is off"
        return Path(f"/proc/{self.holder.pid}/root")

    @property
    def api_socket(self) -> Path:
        return self.root / "run/docker.sock"

    async def boot(self) -> None:
        """The first process; nothing runs on it yet."""
        etc = self.folder / "etc"
        if not etc.exists():
            shutil.copytree("/etc", etc, symlinks=True, ignore=_without("docker"), ignore_dangling_symlinks=True)
            (etc / "docker").mkdir()
        command = ["unshare", *UNSHARED, sys.executable, "-I", "-S", str(HOLDER), self.name, str(self.folder)]
        log = self.folder / f"holder-{self.name}.log"
        log.unlink(missing_ok=True)
        self.holder = await processes.start(
            log.stem, command, logs=self.folder, netns=self.host.netns, forks=True, environment={}
        )

        async def is_ready() -> bool:
            return "ready" in log.read_text()

        await until(is_ready, f"{self.name} is up", watched=self.holder)
        self.host.inside = self.holder

    def listen(self) -> int:
        """The plugin's socket, made if it is not there."""
        if self.unit is None:
            path = self.root / PLUGIN
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            self.unit = socket.socket(socket.AF_UNIX)
            self.unit.bind(str(path))
            self.unit.listen(128)
        return self.unit.fileno()

    def unlisten(self) -> None:
        if self.unit is not None:
            self.unit.close()
            (self.root / PLUGIN).unlink(missing_ok=True)
            self.unit = None

    async def start(self, **settings: Any) -> None:
        """Start dockerd and wait until it answers; `settings` go into daemon.json for good."""
        self.settings |= settings
        (self.folder / "etc/docker/daemon.json").write_text(json.dumps(self._daemon_json()))
        await self.start_soon()
        await until(self.answers, f"dockerd of {self.name} answers", seconds=START_SECONDS, watched=self.daemon)
        if (await self.api("GET", f"/images/{IMAGE}/json"))[0] == 404:
            change = f'CMD ["sh", "-c", {json.dumps(COMMAND)}]'
            await self.docker("import", "--change", change, str(self.programs.image), IMAGE)

    async def start_soon(self) -> None:
        """As an init system does: it is started, and nobody waits."""
        assert self.holder is not None
        self.daemon = await processes.start(
            f"dockerd-{self.name}",
            [self.programs.dockerd, *self.options],
            logs=self.folder.parent,
            inside=self.holder.pid,
            environment=self.programs.environment,
        )

    def _daemon_json(self) -> dict[str, Any]:
        ours = {
            "data-root": str(self.folder / "docker"),
            "storage-driver": "vfs",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": self.cgroup,
            "hosts": ["unix:///run/docker.sock"],
            "dns": [NAMES],
            "shutdown-timeout": 5,
        }
        return ours | self.settings

    async def stop(self) -> None:
        if self.daemon is not None:
            await self.daemon.stop(STOP_SECONDS)

    async def kill(self) -> None:
        """As a crash of dockerd; its containerd dies with it, its containers do not."""
        if self.daemon is not None:
            await self.daemon.kill()

    async def power_off(self) -> None:
        """Every process of the host is gone at once, the worker's too."""
        if self.holder is not None:
            await self.holder.kill()
        if self.unit is not None:
            self.unit.close()
        self.holder = self.daemon = self.host.inside = self.unit = None
        if self.host.worker is not None:
            await self.host.worker.kill()

    async def answers(self) -> bool:
        try:
            return (await self.api("GET", "/_ping"))[0] == 200
        except (NotSent, Lost):
            return False

    async def api(self, method: str, path: str, body: Any = None, seconds: float = COMMAND_SECONDS) -> tuple[int, Any]:
        """One call of Docker's API: the status and the decoded answer.

        Raises:
            NotSent, Lost: it does not answer.
        """
        client = self.client()
        try:
            sent = json.dumps(body).encode() if body is not None else b""
            reply = await client.request(method, API + path, sent, seconds)
        finally:
            await client.close()
        try:
            return reply.status, json.loads(reply.body) if reply.body else None
        except ValueError:
            return reply.status, reply.body.decode(errors="replace")

    def client(self) -> HttpClient:
        """One that keeps its connections; to be closed."""
        return HttpClient((Target.parse(f"unix://{self.api_socket}"),), {})

    async def docker(self, *words: str, seconds: float = COMMAND_SECONDS) -> str:
        """What the `docker` command prints, without the last line's end.

        Raises:
            DockerFailed: with its own words.
        """
        return await self.run([self.programs.docker, *words], seconds=seconds)

    async def run(self, command: Sequence[str], *, seconds: float = COMMAND_SECONDS, **environment: str) -> str:
        """Any program that talks to this host's Docker.

        Raises:
            DockerFailed: with its own words.
        """
        own = {
            "DOCKER_HOST": f"unix://{self.api_socket}",
            "DOCKER_CONFIG": str(self.folder),
            "DOCKER_API_VERSION": API[2:],
        }
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self.programs.environment, **own, **environment},
        )
        try:
            async with asyncio.timeout(seconds):
                said, complained = await child.communicate()
        except TimeoutError:
            child.kill()
            await child.wait()
            raise DockerFailed(f"{self.name}: {' '.join(command)}: nothing within {seconds:g} s") from None
        if child.returncode:
            raise DockerFailed(complained.decode().strip() or said.decode().strip())
        return said.decode().strip()


@dataclass(slots=True)
class DockerLab:
    """The lab, and its hosts as Docker hosts. `worker_options`: of every worker that is started here."""

    lab: Lab
    hosts: dict[str, DockerHost]
    programs: Programs
    worker_options: Sequence[str] = ()

    async def docker(self, host: str, *words: str, seconds: float = COMMAND_SECONDS) -> str:
        return await self.hosts[host].docker(*words, seconds=seconds)

    async def start_worker(self, name: str, *options: str, activated: bool = True) -> Process:
        """With the programs in reach that Docker has (iptables); `activated`: as systemd starts it."""
        path = {"PATH": self.programs.environment["PATH"]}
        host = self.hosts[name]
        if not activated:
            host.unlisten()
        listening = (host.listen(), UNIT) if activated else None
        words = (*self.worker_options, *options)
        return await self.lab.start_worker(name, *words, environment=path, listening=listening)

    async def reboot(self, name: str) -> DockerHost:
        """Power off and on; nothing is started on it. What is on disk is as it was."""
        host = self.hosts[name]
        await host.power_off()
        await self.lab.replug(name)
        await host.boot()
        return host

    async def close(self) -> None:
        for host in self.hosts.values():
            await host.power_off()
        await until(partial(asyncio.to_thread, _is_removed, _cgroup()), "the lab's cgroups are gone")


@asynccontextmanager
async def open_docker_lab(
    directory: Path,
    programs: Programs,
    *,
    hosts: int = 2,
    worker_options: Sequence[str] = (),
    daemons: Mapping[str, Any] | None = None,
    daemon_options: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[DockerLab]:
    """Hosts that are up, without controller, worker and dockerd; `daemons`: what goes into every daemon.json, with
    `%h` for the host's name and `%a` for its address in `daemon_options`. `options`: as of `open_lab`.
    """
    namespaces.share()
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(open_lab(directory, hosts=hosts, **options))
        made = DockerLab(lab, {}, programs, worker_options)
        stack.push_async_callback(made.close)
        for name, host in lab.hosts.items():
            folder = directory / f"{name}-docker"
            folder.mkdir()
            words = [w.replace("%h", name).replace("%a", str(host.port.underlay)) for w in daemon_options]
            made.hosts[name] = DockerHost(
                host, programs, folder, f"{_cgroup()}/{name}", dict(daemons or {}), tuple(words)
            )
            await made.hosts[name].boot()
        yield made


def _cgroup() -> str:
    return f"/kvnet-lab-{os.getpid()}"


def _is_removed(cgroup: str) -> bool:
    """Removes what is empty of it, in every hierarchy."""
    roots = [CGROUPS / cgroup[1:], *(folder / cgroup[1:] for folder in CGROUPS.iterdir() if folder.is_dir())]
    for root in roots:
        for folder, _, _ in os.walk(root, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
    return not any(root.exists() for root in roots)


def _without(name: str) -> Any:
    """For `copytree`: leaves out the folder of that name, and what cannot be read."""

    def ignored(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if n == name or not os.access(os.path.join(folder, n), os.R_OK)]

    return ignored
