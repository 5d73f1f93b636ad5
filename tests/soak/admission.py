"""Makes the site one that nobody gets into unasked: a CA, certificates, a first token, and hosts that joined.

As an operator would, with the product's commands. Controllers then speak TLS and ask everybody on the fabric for a
credential; a worker has its host's token, bound to a certificate of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvnet.errors import Unfit
from lab import processes
from lab.processes import KVNET

COMMAND_S = 60.0


class Admission:
    """`folder`: of the CA, the first token, and the tokens that hosts join with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ran = 0

    @property
    def _ca(self) -> Path:
        return self.folder / "ca"

    @property
    def controller_options(self) -> tuple[str, ...]:
        return ("--ca", str(self._ca), "--bootstrap-token-file", str(self.folder / "first.token"))

    async def found(self, addresses: Sequence[str]) -> None:
        """A CA, and the certificate of controllers at these addresses."""
        self.folder.mkdir()
        await self._kvnet("ca", "init", str(self._ca))
        names = [word for address in addresses for word in ("--ip", address)]
        await self._kvnet("ca", "issue", "controller", "--ca", str(self._ca), *names)

    async def admit(self, host: str, netns: Path, state_dir: Path, *, operator: str, controllers: str) -> None:
        """The operator makes a token for the host, which joins with it."""
        token = self.folder / f"{host}.token"
        await self._kvnet("host", "join-token", host, "--out", str(token), controller=operator)
        words = ["--token-file", str(token), "--host", host, "--state-dir", str(state_dir)]
        words += ["--ca-file", str(self._ca / "ca.pem")]
        await self._kvnet("worker", "join", *words, controller=controllers, netns=netns)

    async def _kvnet(self, *words: str, controller: str = "", netns: Path | None = None) -> None:
        """
        Raises:
            Unfit: it did not succeed; with its words.
        """
        self._ran += 1
        environment: Mapping[str, str] = {"KVNET_CONTROLLER": controller} if controller else {}
        name = f"kvnet-{self._ran}"
        command = [*KVNET, *words]
        process = await processes.start(name, command, logs=self.folder.parent, netns=netns, environment=environment)
        async with asyncio.timeout(COMMAND_S):
            status = await process.child.wait()
        if status:
            raise Unfit(f"kvnet {' '.join(words)} ended with {status}: {process.last_words()}")
