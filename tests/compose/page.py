"""The world of docs/compose.md: one machine with Docker and compose, where this checkout has just been cloned.

`docker compose` is 1.29 there, so what compose prints about its own doings is not what version 2 prints; the page
leaves that out. The project is called kvnet, as it is in a clone.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.compose.cluster import FILE, SECURED
from tests.compose.engine import Engine, own_engine
from tests.compose.images import CHECKOUT, all_images
from tests.docker import programs
from tests.docs.pages import BadPage
from tests.docs.shells import Shell
from tests.docs.worlds import CONTROL, NSENTER, Stage

MORTAL = ("setpriv", "--pdeathsig", "KILL", "--")


@dataclass(slots=True)
class Machine(Stage):
    pid: int = 0

    def shell(self, name: str) -> Shell:
        """Where the clone is."""
        if name:
            raise BadPage(f"there is no machine {name}; this world has one")
        if CONTROL not in self.shells:
            enter = (*MORTAL, "nsenter", f"--target={self.pid}", *NSENTER, "--", *MORTAL)
            home = self.folder / "kvnet"
            home.mkdir()
            (home / ".env").symlink_to(CHECKOUT / ".env")
            self.shells[CONTROL] = Shell(enter, home, self.environment)
        return self.shells[CONTROL]


@asynccontextmanager
async def open_compose(folder: Path) -> AsyncIterator[Stage]:
    async with own_engine(folder) as engine:
        for image in all_images().values():
            await engine.need(image)
        assert engine.holder is not None
        machine = Machine(folder, {}, _environment(folder, engine), pid=engine.holder.pid)
        try:
            yield machine
        finally:
            await machine.close()


def _environment(folder: Path, engine: Engine) -> dict[str, str]:
    tools = folder / "bin"
    tools.mkdir()
    libraries = {name: engine.environment[name] for name in ("LD_LIBRARY_PATH", "PYTHONPATH")}
    words = " ".join(f"{name}='{value}'" for name, value in libraries.items())
    compose = " ".join([*programs.COMPOSE, "--ansi", "never", "--project-directory", str(CHECKOUT), "-f", str(FILE)])
    # What COMPOSE_FILE names beside the first one, which has to be named here by its whole path.
    more = f"${{COMPOSE_FILE:+-f {SECURED}}}"
    docker = tools / "docker"
    docker.write_text(
        f"#!/bin/sh\n{words}\nexport {' '.join(libraries)}\n"
        f'if [ "$1" = compose ]; then shift; exec {compose} {more} "$@"; fi\nexec {engine.docker} "$@"\n'
    )
    docker.chmod(0o755)
    return {
        "PATH": f"{tools}:{Path(sys.executable).parent}:{engine.environment['PATH']}:/usr/sbin:/sbin",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "HOME": str(folder),
        "COMPOSE_PROJECT_NAME": "kvnet",
        "DOCKER_CONFIG": engine.environment["DOCKER_CONFIG"],
    }
