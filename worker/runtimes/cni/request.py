"""A CNI call as it comes, checked before anything is done: environment and configuration into one value.

What only ADD reads of the configuration is judged in `options`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kvnet.errors import Invalid
from kvnet.rules import shown
from kvnet.shims.cni import VERSIONS
from worker.runtimes.cni.refusals import CniRefused, Number
from worker.runtimes.netns import require_interface_name

RUNTIME = "cni"
# As the specification has them, for container ids and names of networks alike.
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
MAX_IDENTIFIER = 253
CHECK_SINCE, STATUS_SINCE = VERSIONS.index("0.4.0"), VERSIONS.index("1.1.0")


class Command(StrEnum):
    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"


NEEDED: Mapping[Command, tuple[str, ...]] = {
    Command.ADD: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.DEL: ("CNI_CONTAINERID", "CNI_IFNAME"),
    Command.CHECK: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
}


@dataclass(frozen=True, slots=True)
class Call:
    """`name`: of the list of plugins, "" only where DEL came without a configuration. `arguments`: CNI_ARGS."""

    command: Command
    version: str
    name: str = ""
    container: str = ""
    netns: str = ""
    interface: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def network(self) -> str:
        """kvnet's network: the key `network`, or the one that is called as the list is."""
        return str(self.config.get("network") or self.name)

    @property
    def external(self) -> str:
        """The attachment's key. By the list, not by the network: what GC counts are the attachments of one list."""
        return f"{prefix_of(self.name)}{self.container}/{self.interface}"


def as_spelled(given: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Under the names that the conventions give the fields. Go takes them in any case, so runtimes do not care: what
    containerd and Nomad send has HostPort, Servers.
    """
    spelled = {name.lower(): name for name in known}
    return {spelled.get(str(name).lower(), name): value for name, value in given.items()}


def prefix_of(list_name: str) -> str:
    return f"{RUNTIME}/{list_name}/"


def version_of(config: Mapping[str, Any]) -> str:
    """What an answer to this bears, whatever else is wrong with it."""
    version = config.get("cniVersion")
    return version if isinstance(version, str) and version in VERSIONS else VERSIONS[-1]


def parse_call(environment: Mapping[str, Any], config: Mapping[str, Any]) -> Call:
    """
    Raises:
        CniRefused: the first thing that is wrong with it.
    """
    command = _command(environment)
    if command is Command.VERSION:
        return Call(command, version_of(config))
    is_bare_del = command is Command.DEL and not config
    version = VERSIONS[-1] if is_bare_del else _version(config, command)
    name = "" if is_bare_del else _name(config)
    if command not in NEEDED:
        return Call(command, version, name, config=config)
    missing = [name for name in NEEDED[command] if not environment.get(name)]
    if missing:
        raise CniRefused(Number.BAD_ENVIRONMENT, f"{', '.join(missing)} is missing in the environment")
    return Call(
        command,
        version,
        name,
        container=_container(str(environment["CNI_CONTAINERID"])),
        netns=_netns(str(environment.get("CNI_NETNS") or "")),
        interface=_interface(str(environment["CNI_IFNAME"])),
        arguments=parse_arguments(str(environment.get("CNI_ARGS") or "")),
        config=config,
    )


def parse_arguments(text: str) -> dict[str, str]:
    """
    Raises:
        CniRefused: not `NAME=VALUE;NAME=VALUE`.
    """
    found: dict[str, str] = {}
    for pair in filter(None, text.split(";")):
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CniRefused(Number.BAD_ENVIRONMENT, f"CNI_ARGS has {shown(pair)}, which is not NAME=VALUE")
        found[name] = value
    return found


def _command(environment: Mapping[str, Any]) -> Command:
    given = environment.get("CNI_COMMAND")
    try:
        return Command(str(given))
    except ValueError:
        raise CniRefused(
            Number.BAD_ENVIRONMENT, f"CNI_COMMAND {shown(str(given or ''))} is unknown", fix=", ".join(Command)
        ) from None


def _version(config: Mapping[str, Any], command: Command) -> str:
    version = config.get("cniVersion")
    known = f"cniVersion must be one of {', '.join(VERSIONS)}"
    if not isinstance(version, str) or version not in VERSIONS:
        told = shown(version) if isinstance(version, str) else "none"
        raise CniRefused(Number.INCOMPATIBLE, f"the configuration's cniVersion is {told}", fix=known)
    since = {Command.CHECK: CHECK_SINCE, Command.GC: STATUS_SINCE, Command.STATUS: STATUS_SINCE}.get(command, 0)
    if VERSIONS.index(version) < since:
        raise CniRefused(
            Number.INCOMPATIBLE, f"there is no {command} in version {version}", fix=f"{VERSIONS[since]} or newer has it"
        )
    return version


def _name(config: Mapping[str, Any]) -> str:
    name, network = config.get("name"), config.get("network", "")
    if not isinstance(name, str) or len(name) > MAX_IDENTIFIER or not IDENTIFIER.match(name):
        raise CniRefused(Number.BAD_CONFIGURATION, "the configuration has no name, or not a usable one")
    if not isinstance(network, str):
        raise CniRefused(Number.BAD_CONFIGURATION, "'network' is not a text", fix="the name of a network of kvnet")
    return name


def _container(container: str) -> str:
    if len(container) > MAX_IDENTIFIER or not IDENTIFIER.match(container):
        raise CniRefused(Number.BAD_ENVIRONMENT, f"CNI_CONTAINERID {shown(container)} is not an id")
    return container


def _netns(netns: str) -> str:
    if netns and not (netns.startswith("/") and netns.isprintable()):
        raise CniRefused(Number.BAD_ENVIRONMENT, f"CNI_NETNS {shown(netns)} is not an absolute path")
    return netns


def _interface(name: str) -> str:
    try:
        return require_interface_name(name)
    except Invalid as error:
        raise CniRefused(Number.BAD_ENVIRONMENT, f"CNI_IFNAME: {error.detail}", fix=error.fix) from error
