"""Docker, iptables in both flavours and firewalld, as Debian's packages have them, in a namespace of the test's.

They are unpacked by `install` (from `make servers`); nothing is installed on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from lab import namespaces

ROOT = Path(__file__).parents[3] / ".tools" / "neighbours" / "root"
LIBRARIES = f"{ROOT}/lib/x86_64-linux-gnu:{ROOT}/usr/lib/x86_64-linux-gnu"
RUN = Path("/run/neighbours")  # short: a socket's path has at most 107 characters
FLAVOURS = ("nft", "legacy")
BUS = """<busconfig><type>system</type><listen>unix:path={path}</listen><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>
"""
START_SECONDS = 30.0
STOP_SECONDS = 15.0
RUN_SECONDS = 15.0
PAUSE_S = 0.05


def libraries() -> str:
    return ":".join(sorted({str(path.parent) for path in ROOT.rglob("*.so.*")}))


def make_wrappers(folder: Path) -> Path:
    """`bin`: both flavours under their own names; `nft/` and `legacy/`: as `iptables`, for programs that call that."""
    assert ROOT.is_dir(), "the programs are not there: run tests/lab/coexistence/install"
    extensions = next(ROOT.rglob("xtables"))
    for flavour in FLAVOURS:
        for program in ("iptables", "ip6tables"):
            for suffix in ("", "-save", "-restore"):
                target = ROOT / "usr" / "sbin" / f"{program}-{flavour}{suffix}"
                for place in (folder / "bin" / target.name, folder / flavour / f"{program}{suffix}"):
                    place.parent.mkdir(exist_ok=True)
                    place.write_text(
                        f'#!/bin/sh\nLD_LIBRARY_PATH={libraries()} XTABLES_LIBDIR={extensions} exec {target} "$@"\n'
                    )
                    place.chmod(0o755)
    return folder


def run(netns: Path, *arguments: str | Path) -> str:
    """As an administrator would, in the host's namespace."""
    words = list(map(str, arguments))
    done = namespaces.call(
        netns, lambda: subprocess.run(words, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    )
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


@contextlib.asynccontextmanager
async def dockerd(netns: Path, wrappers: Path, flavour: str, folder: Path) -> AsyncIterator[None]:
    settings = _made(folder)
    arguments = [
        str(ROOT / "usr" / "sbin" / "dockerd"),
        f"--config-file={settings}",
        f"--data-root={folder}/data",
        f"--exec-root={RUN}",
        f"--pidfile={folder}/pid",
        f"--host=unix://{RUN}/socket",
        "--storage-driver=vfs",
    ]
    path = f"{wrappers / flavour}:{ROOT}/usr/bin:{ROOT}/usr/sbin:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "LD_LIBRARY_PATH": libraries()}
    async with _running(netns, arguments, environment, folder / "log"):
        await until(lambda: _answers(RUN / "socket"), f"dockerd answers; its log is {folder}/log")
        yield


@contextlib.asynccontextmanager
async def firewalld(netns: Path, folder: Path, configuration: Path) -> AsyncIterator[None]:
    """With a D-Bus of its own: it needs no systemd and, for root, no polkit."""
    bus = RUN.with_suffix(".bus")
    packages = ROOT / "usr" / "lib" / "python3" / "dist-packages"
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": libraries(),
        "PYTHONPATH": str(packages),
        "GI_TYPELIB_PATH": str(next(ROOT.rglob("girepository-1.0"))),
        "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={bus}",
    }
    (folder / "bus.conf").write_text(BUS.format(path=bus))
    dbus = [str(ROOT / "usr/bin/dbus-daemon"), f"--config-file={folder}/bus.conf", "--nofork"]
    wall = ["/usr/bin/python3", str(ROOT / "usr" / "sbin" / "firewalld"), "--nofork", "--nopid"]
    wall += [f"--default-config={ROOT}/usr/lib/firewalld", f"--system-config={configuration}"]
    async with _running(netns, dbus, environment, folder / "dbus.log"):
        await until(bus.exists, f"D-Bus is there; its log is {folder}/dbus.log")
        async with _running(netns, wall, environment, folder / "firewalld.log"):
            yield


async def until(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None


@contextlib.asynccontextmanager
async def _running(
    netns: Path, arguments: Sequence[str], environment: dict[str, str], log: Path
) -> AsyncIterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        started = namespaces.call(
            netns,
            lambda: subprocess.Popen(
                arguments, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/"
            ),
        )
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(started.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            started.kill()
            await asyncio.to_thread(started.wait, STOP_SECONDS)


def _made(folder: Path) -> Path:
    """Empty settings, so that those of the machine do not matter."""
    folder.mkdir(exist_ok=True)
    settings = folder / "daemon.json"
    settings.write_text("{}")
    return settings


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(str(path))
            asking.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b"200" in asking.recv(64)
        except OSError:
            return False
