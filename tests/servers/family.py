"""What the tests need to know of each kind of server; `etcd`, `consul` and `zookeeper` tell it.

A `Site` is what one cluster is made of, decided before its first member starts. A `Family` says how a member of it is
configured and asked; it starts and ends nothing itself, that is `member`'s.
"""

from __future__ import annotations

import asyncio
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tests.servers.binaries import Kind
from tests.servers.certificates import Certificates
from tests.servers.places import Place, free_ports

TOOL_SECONDS = 10.0


class ServerFailed(Exception):
    """A server, or a tool of it, did not do what it was told to; with its last words."""


@dataclass(frozen=True, slots=True)
class Launch:
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a member says of itself. Of two that say they lead, the one of the higher term does."""

    leads: bool
    term: int


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and password, or (Consul) a token as password."""

    user: str
    password: str = field(repr=False)


@dataclass(slots=True)
class Site:
    """`ports[i]` are member i's, by purpose; `generation` counts the clusters that were made anew here."""

    kind: Kind
    directory: Path
    places: tuple[Place, ...]
    certificates: Certificates | None
    client_certificates: bool
    auth: bool
    token_ttl_s: int | None
    options: tuple[str, ...]
    ports: list[dict[str, int]] = field(default_factory=list)
    generation: int = 1
    answering: set[int] = field(default_factory=set)  # members that run and are not frozen
    wiped: set[int] = field(default_factory=set)  # members without data that have not been started since

    def name(self, index: int) -> str:
        return f"{self.kind}-{index + 1}"

    def folder(self, index: int) -> Path:
        return self.directory / self.name(index)

    def data(self, index: int) -> Path:
        return self.folder(index) / "data"

    def at(self, index: int, purpose: str) -> str:
        """`address:port`."""
        return self.places[index].at(self.ports[index][purpose])

    def everywhere(self) -> range:
        return range(len(self.places))


class Family(ABC):
    """How the members of one site are configured and asked. Every method is bounded in time."""

    SCHEME: ClassVar[str]
    PORTS: ClassVar[tuple[str, ...]]  # one of them is "client"

    def __init__(self, site: Site) -> None:
        self.site = site
        self.tls = site.certificates.client_context() if site.certificates else None
        self.choose_ports()

    def choose_ports(self) -> None:
        found = free_ports(self.site.places, len(self.PORTS))
        self.site.ports = [dict(zip(self.PORTS, ports, strict=True)) for ports in found]

    @abstractmethod
    def launch(self, index: int, *, joins: bool) -> Launch:
        """Write the member's files and say what to run. `joins`: it comes without data to a cluster that lives."""

    @abstractmethod
    async def is_ready(self, index: int) -> bool:
        """It serves reads and writes as a member of a cluster that has a leader.

        Raises:
            NoAnswer: it does not even answer.
        """

    @abstractmethod
    async def standing(self, index: int) -> Standing:
        """
        Raises:
            NoAnswer: it cannot be asked.
        """

    async def admit(self, index: int) -> None:  # noqa: B027 - most kinds need nothing
        """Tell the others that the member comes back without its data.

        Raises:
            ServerFailed: they do not agree.
        """

    async def secure(self) -> None:  # noqa: B027 - most kinds are secured by their configuration
        """Turn authentication on in a new cluster that is up.

        Raises:
            ServerFailed: with the tool's words.
        """

    @abstractmethod
    async def grant(self, prefix: str) -> Credentials:
        """Someone who may do everything below the key prefix, and nothing elsewhere. Repeating is no error.

        A prefix such as "/kvnet/" suits every kind: Consul's keys begin with no slash, so it is left out there.
        """

    @abstractmethod
    async def stranger(self) -> Credentials:
        """Someone whom the store knows and allows nothing."""


async def run(place: Place, command: Sequence[str]) -> str:
    """Run a tool where the place is; its stdout.

    Raises:
        ServerFailed: it failed, or took too long.
    """
    if place.netns is not None:
        command = [shutil.which("nsenter") or "nsenter", f"--net={place.netns}", "--", *command]
    tool = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TOOL_SECONDS):
            output, complaints = await tool.communicate()
    except TimeoutError:
        raise ServerFailed(f"{' '.join(command)}: no answer within {TOOL_SECONDS:g} s") from None
    finally:
        if tool.returncode is None:
            tool.kill()
            await tool.wait()
    if tool.returncode:
        raise ServerFailed(f"{' '.join(command)}: {(output + complaints).decode(errors='replace').strip()}")
    return output.decode(errors="replace").strip()
