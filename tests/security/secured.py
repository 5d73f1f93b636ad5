"""A controller in a process of its own, on its fast event loop, that speaks TLS: with files that a test chooses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from controller.security import authority

KVNET = (sys.executable, "-m", "cli.main")
READY = re.compile(r"ready: (https?://[^ ,]+)")
DEADLINE_S = 60.0


@dataclass
class Secured:
    """`said`: its log so far."""

    url: str
    process: subprocess.Popen[str]
    admin: Path
    said: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def token(self) -> str:
        return self.admin.read_text().strip()

    def renew(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def until_said(self, word: str) -> str:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            found = next((line for line in self.said if word in line), "")
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{word!r} was not said: {self.said[-5:]}")


def own_ca(folder: Path) -> Path:
    """A CA made by `kvnet ca`'s own code, with a controller's certificate."""
    directory = folder / "ca"
    authority.create(directory, time.time(), days=100, permitted=())
    authority.issue_controller(directory, [], [], time.time(), days=90)
    return directory


def kvnet(*arguments: str, input: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    return subprocess.run(
        [*KVNET, *arguments],
        input=input,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env=_environment(environment),
    )


@contextmanager
def secured(folder: Path, *options: str) -> Iterator[Secured]:
    """With the first admin's token in `folder`."""
    store, admin = f"sqlite://{folder}/kvnet.db", folder / "admin.token"
    made = kvnet("token", "create", "root", "--role", "admin", "--store", store, "--out", str(admin))
    assert made.returncode == 0, made.stderr
    command = [*KVNET, "controller", "--store", store, "--listen", "127.0.0.1:0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_environment({}))
    site = Secured("", process, admin)
    listener = threading.Thread(target=_listen, args=(process, site.said), daemon=True)
    listener.start()
    try:
        found = READY.search(site.until_said("ready:"))
        assert found is not None
        site.url = found[1]
        yield site
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
        listener.join(DEADLINE_S)
        assert process.stderr is not None
        process.stderr.close()


def _listen(process: subprocess.Popen[str], said: list[str]) -> None:
    assert process.stderr is not None
    while line := process.stderr.readline():
        said.append(line)


def _environment(more: dict[str, str]) -> dict[str, str]:
    """Nothing that the machine of the tests says of a controller."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("KVNET_")}
    return {**plain, "XDG_CONFIG_HOME": "/nonexistent", **more}
