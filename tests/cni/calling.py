"""Calls as a container runtime makes them: a process per call, the environment and a configuration, an exit status."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
CALL_SECONDS = 30.0
SHIMS = {"kvnet-cni": "kvnet.shims.cni", "kvnet-netavark": "kvnet.shims.netavark"}
# As pip writes the programs of a package.
SCRIPT = """\
#!{python}
# -*- coding: utf-8 -*-
import re
import sys
sys.path.insert(0, {checkout!r})
from {module} import main
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class Programs:
    folder: Path

    @property
    def cni(self) -> Path:
        return self.folder / "kvnet-cni"

    @property
    def netavark(self) -> Path:
        return self.folder / "kvnet-netavark"


def make_programs(folder: Path) -> Programs:
    for name, module in SHIMS.items():
        path = folder / name
        path.write_text(SCRIPT.format(python=sys.executable, checkout=str(CHECKOUT), module=module))
        path.chmod(0o755)
    return Programs(folder)


@dataclass(frozen=True, slots=True)
class Answer:
    """`said`: the object on standard output; None where there was nothing."""

    status: int
    said: dict[str, Any] | None

    @property
    def result(self) -> dict[str, Any]:
        assert self.status == 0, self.said
        assert self.said is not None
        return self.said

    @property
    def code(self) -> int:
        assert self.status != 0, self.said
        assert self.said is not None
        return int(self.said["code"])

    @property
    def message(self) -> str:
        assert self.said is not None
        return str(self.said["msg"])

    def require_quiet(self) -> None:
        """Done, and nothing said: as DEL, CHECK, GC and STATUS answer."""
        assert (self.status, self.said) == (0, None), self.said


@dataclass(frozen=True, slots=True)
class Runtime:
    """A container runtime with one list of one plugin, kvnet-cni, whose socket is that of a worker."""

    program: Path
    socket: Path
    name: str = "pods"
    version: str = "1.1.0"
    keys: Mapping[str, Any] = field(default_factory=dict)

    def config(self, **more: Any) -> dict[str, Any]:
        plain = {"cniVersion": self.version, "name": self.name, "type": "kvnet-cni", "socket": str(self.socket)}
        return {**plain, **self.keys, **more}

    async def call(
        self,
        command: str,
        container: str = "",
        netns: str | Path = "",
        *,
        interface: str = "eth0",
        arguments: str = "",
        config: Mapping[str, Any] | bytes | None = None,
        **more: Any,
    ) -> Answer:
        """`config` in place of the list's own, as it goes to standard input; `more` are keys beside those."""
        environment = {"CNI_COMMAND": command, "CNI_PATH": str(self.program.parent), "CNI_ARGS": arguments}
        environment |= {"KVNET_SOCKET": str(self.socket)} if isinstance(config, bytes) else {}
        if container:
            environment |= {"CNI_CONTAINERID": container, "CNI_NETNS": str(netns), "CNI_IFNAME": interface}
        given = config if isinstance(config, bytes) else json.dumps(config or self.config(**more)).encode()
        return await run(self.program, given, environment)

    async def add(self, container: str, netns: str | Path, **more: Any) -> dict[str, Any]:
        return (await self.call("ADD", container, netns, **more)).result

    async def delete(self, container: str, netns: str | Path = "", **more: Any) -> None:
        (await self.call("DEL", container, netns, **more)).require_quiet()


async def run(program: Path, given: bytes, environment: Mapping[str, str], *arguments: str) -> Answer:
    child = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **{name: value for name, value in environment.items() if value}},
    )
    async with asyncio.timeout(CALL_SECONDS):
        said, cried = await child.communicate(given)
    assert not cried, cried.decode()
    return Answer(child.returncode or 0, json.loads(said) if said.strip() else None)
