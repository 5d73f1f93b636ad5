"""The units fit each other, the code and systemd; and a socket that systemd made is really served."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import pytest

from tests.unit.worker.docker.kit import read_reply
from worker.runtimes.docker import http
from worker.settings import DockerSettings, parse_dns

ROOT = Path(__file__).parents[4]
UNITS = ROOT / "packaging" / "systemd"
SERVE = """
import asyncio, sys
from pathlib import Path
from worker.log import Log
from worker.runtimes.docker.http import HttpServer, Reply, listen_for_docker

async def answer(request):
    return Reply(200, request.path.encode())

async def main():
    listening = await listen_for_docker(Path("/nonexistent/kvnet.sock"))
    await HttpServer(listening, answer, log=Log()).run()

asyncio.run(main())
"""


def unit(name: str) -> ConfigParser:
    read = ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read_string((UNITS / name).read_text())
    return read


def test_the_socket_is_the_one_that_the_worker_looks_for() -> None:
    socket, service = unit("kvnet-docker.socket"), unit("kvnet-worker.service")

    assert socket["Socket"]["ListenStream"] == str(DockerSettings().plugin)
    assert socket["Socket"]["FileDescriptorName"] == http.NAME
    assert socket["Socket"]["Service"] == "kvnet-worker.service"
    assert service["Service"]["Sockets"] == "kvnet-docker.socket"
    assert "docker.service" in socket["Unit"]["Before"]


def test_the_units_run_commands_that_there_are() -> None:
    for name in ("worker", "controller"):
        program, command, options = unit(f"kvnet-{name}.service")["Service"]["ExecStart"].split()
        assert program.endswith("/bin/kvnet")
        assert command == name
        assert import_module(f"cli.{name}").__dict__[name].name == command
        assert options == "$KVNET_OPTIONS"


def test_docker_asks_for_names_where_the_worker_answers_them() -> None:
    settings = json.loads((ROOT / "packaging/docker/daemon.json").read_text())

    assert [parse_dns(text) for text in settings["dns"]] == [parse_dns("169.254.53.53")]


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    folder = tmp_path / "system"
    shutil.copytree(UNITS, folder)
    (folder / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    for path in folder.glob("*.service"):  # kvnet need not be installed to test its units
        path.write_text(path.read_text().replace("/usr/local/bin/kvnet", "/bin/true"))
    units = [str(path) for path in folder.iterdir() if path.is_file()]

    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.anyio
async def test_a_socket_that_systemd_made_is_served_and_outlives_the_worker(tmp_path: Path) -> None:
    path = tmp_path / "kvnet.sock"
    activation = await asyncio.create_subprocess_exec(
        *("systemd-socket-activate", f"--listen={path}", f"--fdname={http.NAME}", f"--setenv=PYTHONPATH={ROOT}"),
        *(sys.executable, "-c", SERVE),
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(str(path))
                    break
                except OSError:
                    await asyncio.sleep(0.02)
            writer.write(b"POST /Plugin.Activate HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n")
            answered = await read_reply(reader)
            writer.close()
    finally:
        activation.send_signal(signal.SIGKILL)
        await activation.wait()

    assert answered[:2] == (200, b"/Plugin.Activate")
    assert path.exists()
