"""Makes a cable of the lab's fabric a bad one for a while: frames are lost, and late, in both directions.

The kernel's own means (netem) is missing on many machines, and an nftables rule can lose packets but not delay
them; so a program carries the frames (`relay`). While the cable is moved from the bridge to the relay and back some
frames are lost: that is part of the fault, and inside its window.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from kvnet.errors import Unfit
from lab import fabric, processes
from lab.lab import until
from lab.processes import Process

RELAY = Path(__file__).with_name("relay.py")
FABRIC = "fabric"  # the namespace that `open_lab` makes for it
JITTER_S = 0.01
COMMAND_S = 10.0


@dataclass(slots=True)
class BadWire:
    """Of the cable to `port`. `start` may be called once; `stop` any number of times, also after half a start."""

    port: fabric.Port
    logs: Path
    relay: Process | None = None

    @property
    def _tap(self) -> str:
        return f"slow{self.port.number}"

    async def start(self, loss: float, delay_s: float, seed: int) -> None:
        """
        Raises:
            Unfit: no TAP device can be made here; with the relay's words.
        """
        words = [self.port.cable, self._tap, f"{loss}", f"{delay_s}", f"{JITTER_S if delay_s else 0.0}", f"{seed}"]
        command = [sys.executable, "-I", "-S", str(RELAY), *words]
        log = self.logs / f"relay-{self.port.number}.log"
        log.unlink(missing_ok=True)
        netns = Path("/run/netns") / FABRIC
        self.relay = await processes.start(f"relay-{self.port.number}", command, logs=self.logs, netns=netns)

        async def is_up() -> bool:
            return "ready" in log.read_text()

        await until(is_up, "the bad wire is there", watched=self.relay)
        bridge = fabric.bridge_of(self.port.segment)
        await ip("link", "set", self._tap, "mtu", str(self.port.mtu), "up", "master", bridge)
        await ip("link", "set", self.port.cable, "nomaster")

    async def stop(self) -> None:
        relay, self.relay = self.relay, None
        if relay is None:
            return
        await ip("link", "set", self.port.cable, "master", fabric.bridge_of(self.port.segment))
        await relay.stop()


async def ip(*words: str) -> None:
    """In the fabric's namespace.

    Raises:
        Unfit: with the words of `ip`.
    """
    tool = shutil.which("ip")
    if tool is None:
        raise Unfit("there is no 'ip' on this machine", fix="install iproute2")
    process = await asyncio.create_subprocess_exec(
        tool, "-n", FABRIC, *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(COMMAND_S):
        _, said = await process.communicate()
    if process.returncode:
        raise Unfit(f"ip {' '.join(words)}: {said.decode().strip()}")
