"""Plays `systemctl` for the rooms of a world: the units of `packaging/systemd`, the store's members, Docker.

Units are read from their files: `ExecStart`, `Environment` and `EnvironmentFile` mean what they mean to systemd, so a
page that writes `/etc/kvnet/worker.env` and starts the unit is held to both. Sandboxing is not played.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kvnet.errors import KvnetError
from kvnet.local import WorkerClient
from lab import processes
from lab.docker_hosts import UNIT, DockerHost
from lab.lab import until
from lab.processes import Process
from tests.docs.pages import CHECKOUT, BadPage

UNITS = CHECKOUT / "packaging" / "systemd"
KVNET = (str(Path(sys.executable).with_name("kvnet")),)
STATE_DIRECTORIES = Path("var/lib")
VERBS = ("start", "stop", "restart", "kill", "enable", "daemon-reload", "poweroff", "reboot")
Action = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Room:
    """A machine of a world. `members`: what starts and stops the store's server that is on it, by unit."""

    host: DockerHost
    members: dict[str, dict[str, Action]] = field(default_factory=dict)
    units: dict[str, Process] = field(default_factory=dict)
    said: int = 0  # how long the log was before the unit was started
    revive: Callable[[], Awaitable[None]] | None = None

    @property
    def name(self) -> str:
        return self.host.name

    async def systemctl(self, words: list[str]) -> None:
        """
        Raises:
            BadPage: no such verb or unit is played here.
            Unfit: what is started does not come up.
        """
        is_now = "--now" in words
        verb, *units = [word for word in words if not word.startswith("-")]
        if verb not in VERBS:
            raise BadPage(f"systemctl {verb} is not played")
        if verb in ("poweroff", "reboot"):
            await self.host.power_off()
            self.units.clear()
            if verb == "reboot" and self.revive is not None:
                await self.revive()
        elif verb == "enable" and is_now:
            verb = "start"
        for unit in units:
            if verb in ("start", "stop", "restart", "kill"):
                await self._unit(verb, unit.removesuffix(".service"))

    async def _unit(self, verb: str, unit: str) -> None:
        if unit in self.members:
            for step in ("stop", "start") if verb == "restart" else (verb,):
                await self.members[unit][step]()
        elif unit == "docker":
            if verb in ("stop", "restart"):
                await self.host.stop()
            if verb in ("start", "restart"):
                await self.host.start()
        elif unit == "kvnet-docker.socket":
            self.host.listen()
        elif (UNITS / f"{unit}.service").exists():
            if verb != "start" and unit in self.units:
                await (self.units[unit].kill() if verb == "kill" else self.units[unit].stop())
            if verb in ("start", "restart"):
                await self.start(unit)
        else:
            raise BadPage(f"{self.name} has no unit {unit}")

    async def start(self, unit: str) -> None:
        text = (UNITS / f"{unit}.service").read_text()
        environment = {
            **_environment(" ".join(re.findall(r"^Environment=(.*)$", text, re.MULTILINE)).replace("%S", "/var/lib")),
            **self._files(re.findall(r"^EnvironmentFile=-?(.*)$", text, re.MULTILINE)),
        }
        for folder in re.findall(r"^StateDirectory=(.*)$", text, re.MULTILINE):
            (self.root / STATE_DIRECTORIES / folder).mkdir(parents=True, exist_ok=True)
        _, *words = next(iter(re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE))).split()
        command = [piece for word in words for piece in _expanded(word, environment)]
        assert self.host.holder is not None
        log = self.host.folder / f"{unit}-{self.name}.log"
        self.said = log.stat().st_size if log.exists() else 0
        process = await processes.start(
            f"{unit}-{self.name}",
            [*KVNET, *command],
            logs=self.host.folder,
            inside=self.host.holder.pid,
            environment={
                "KVNET_NAMESPACE_FILES": "/etc/netns",
                "PYTHONPATH": str(CHECKOUT),
                **self.path(),
                **environment,
            },
            listening=(self.host.unit.fileno(), UNIT) if "Sockets=" in text and self.host.unit else None,
        )
        self.units[unit] = process
        ready = self._worker_is_ready if unit == "kvnet-worker" else self._controller_is_ready
        await until(ready, f"{unit} on {self.name} is ready", watched=process)

    @property
    def root(self) -> Path:
        return self.host.root

    def path(self) -> Mapping[str, str]:
        theirs = self.host.programs.environment
        return {"PATH": theirs["PATH"]} if "PATH" in theirs else {}

    def _files(self, paths: list[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in paths:
            file = self.root / path.lstrip("/")
            if file.exists():
                for line in file.read_text().splitlines():
                    name, _, value = line.strip().partition("=")
                    if name and not name.startswith("#"):
                        found[name] = value.strip("'\"")
        return found

    async def _worker_is_ready(self) -> bool:
        try:
            return bool((await WorkerClient(str(self.root / "run/kvnet/worker.sock")).status())["ready"])
        except KvnetError:
            return False

    async def _controller_is_ready(self) -> bool:
        return b"controller ready" in self.units["kvnet-controller"].log.read_bytes()[self.said :]


def _environment(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in shlex.split(text))}


def _expanded(word: str, environment: Mapping[str, str]) -> list[str]:
    return environment.get(word[1:], "").split() if word.startswith("$") else [word]


def is_there(program: str) -> bool:
    return shutil.which(program) is not None
