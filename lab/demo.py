"""The demo: three hosts, one overlay network, a workload on each, and proof that they reach each other.

Two processes. The outer one runs the controller on the machine's own loopback, where a browser finds it; the inner one
(`python -m lab.demo OPTIONS`, inside namespaces of its own) runs hosts, workers and workloads. Both end with the first
Ctrl-C, however far they are, and leave nothing behind. Never touches the machine's own network.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from kvnet.client import Client
from kvnet.errors import ControllerUnreachable, Invalid, KvnetError, NameTaken, Unfit
from kvnet.wire import Network
from lab import processes
from lab.enter import settle, wrapped
from lab.lab import Lab, open_lab
from lab.processes import KVNET, Process
from lab.report import PingResult, Report

FAVOURITE_PORT = 7480
STOP_SECONDS = 10.0
INTERRUPTED = 130  # what a shell calls a command that Ctrl-C ended
# The longest path below it is a socket's, and those have at most 107 bytes.
MAX_PLACE_BYTES = 107 - len("/kvnet-demo-12345678/h50/w.sock")
MAX_HOSTS = 50
NETWORK = "demo"


@dataclass(frozen=True, slots=True)
class Options:
    """`started`: when the user pressed return (monotonic clock), for the time to the first ping.

    `is_own_store`: it is thrown away with the demo; otherwise it is a site's, and is left as it was found.
    """

    directory: str
    listen: str
    store: str
    is_own_store: bool
    hosts: int
    once: bool
    as_json: bool
    started: float


async def run(*, hosts: int, store: str | None, once: bool, as_json: bool) -> int:
    """Run the demo; the process's exit status.

    Raises:
        Invalid: so many hosts cannot be made.
        Unfit: this machine cannot, and what to do about it.
        KvnetError: what the controller said.
    """
    started = time.monotonic()
    if not 2 <= hosts <= MAX_HOSTS:
        raise Invalid(f"{hosts} hosts; the demo makes 2 to {MAX_HOSTS}", fix="for example: kvnet demo --hosts 3")
    with tempfile.TemporaryDirectory(prefix="kvnet-demo-", dir=_place()) as directory:
        url = store or f"sqlite://{directory}/kvnet.db"
        options = Options(directory, f"127.0.0.1:{_free_port()}", url, store is None, hosts, once, as_json, started)
        command = [sys.executable, "-m", "lab.demo", json.dumps(asdict(options))]
        command, environment = wrapped(command)
        controller = await _start_controller(options)
        try:
            # A session of its own: Ctrl-C reaches only this process, which then ends the others in order.
            inner = await asyncio.create_subprocess_exec(*command, env=environment, start_new_session=True)
            return await _attend(inner, controller)
        finally:
            await controller.stop()


def _place() -> str | None:
    """Not below /run, as the inner process has another one, and short enough for the paths of sockets."""
    usual = tempfile.gettempdir()
    is_fit = len(os.fsencode(usual)) <= MAX_PLACE_BYTES and not Path(usual).resolve().is_relative_to("/run")
    return None if is_fit else "/tmp"


async def _start_controller(options: Options) -> Process:
    command = [*KVNET, "controller", "--store", options.store, "--listen", options.listen, "--insecure"]
    command += ["--listen-unix", _controller_socket(options)]
    return await processes.start("controller", command, logs=Path(options.directory))


async def _attend(inner: asyncio.subprocess.Process, controller: Process) -> int:
    """Wait for the inner process, handing our signals on; a dead controller ends the demo with its last words."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, _pass_on, inner)
    ended = {asyncio.ensure_future(inner.wait()), asyncio.ensure_future(controller.child.wait())}
    await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    if inner.returncode is None:
        _pass_on(inner)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await inner.wait()
        controller.require_running()
    for waiting in ended:
        waiting.cancel()
    return inner.returncode if inner.returncode is not None else 1


def _pass_on(inner: asyncio.subprocess.Process) -> None:
    if inner.returncode is None:
        inner.send_signal(signal.SIGTERM)


def _free_port() -> int:
    """The documented port, or any free one if that is taken."""
    for port in (FAVOURITE_PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unfit("no port is free on 127.0.0.1")


def _controller_socket(options: Options) -> str:
    return f"{options.directory}/c.sock"


async def inside(options: Options) -> int:
    """Build, connect, prove, report; then stay until told to stop. The process's exit status."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _end, task)
    say = _teller(options)
    url = f"unix://{_controller_socket(options)}"
    try:
        async with open_lab(
            Path(options.directory), hosts=options.hosts, controller_url=url, store_url=options.store
        ) as lab:
            say(f"{options.hosts} hosts joined by a fabric")
            return await _show(lab, options, say)
    except asyncio.CancelledError:
        return INTERRUPTED


def _end(task: asyncio.Task[int]) -> None:
    """Once: a second Ctrl-C must not cut the cleaning up short."""
    if not task.cancelling():
        task.cancel()


async def _show(lab: Lab, options: Options, say: Callable[[str], None]) -> int:
    network = None
    report = None
    try:
        await _bring_up(lab, options, say)
        network = await _create_network(lab.client)
        await _until_workers_ready(lab)
        say(f"{len(lab.hosts)} workers ready, overlay network {network['name']!r} created")
        report = await _prove(lab, network, options, say)
        _print(report, options)
        if not options.once:
            print(_invitation(lab, report), file=sys.stderr, flush=True)
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("stopping")
        if report is None:
            raise
    finally:
        await _take_down(lab, network, options)
    return 0 if report is not None and report.ok else 1


async def _bring_up(lab: Lab, options: Options, say: Callable[[str], None]) -> None:
    """Workers and controller start side by side; a worker waits for its controller by itself."""
    if not options.is_own_store:
        await lab.until_controller_answers()
        await _refuse_known_hosts(lab)
    for number, name in enumerate(lab.hosts, 1):
        await lab.start_worker(name)
        await lab.add_workload(f"c{number}", name, serve=True)
    await lab.until_controller_answers()
    say("controller answers")


async def _refuse_known_hosts(lab: Lab) -> None:
    """A worker of the demo under the name of a site's host would release what that host carries."""
    known = [host["name"] async for host in lab.client.hosts() if host["name"] in lab.hosts]
    if known:
        raise Unfit(
            f"the store knows hosts of the names that the demo needs: {', '.join(known)}",
            fix="use another store; what a demo that was killed left there goes with 'kvnet host rm NAME --force'",
        )


async def _until_workers_ready(lab: Lab) -> None:
    async with asyncio.TaskGroup() as group:
        for name in lab.hosts:
            group.create_task(lab.until_ready(name))


async def _create_network(client: Client) -> Network:
    """`demo`, or `demo-2`, ... where the store has one already."""
    for number in range(1, 100):
        name = NETWORK if number == 1 else f"{NETWORK}-{number}"
        try:
            return await client.create_network({"name": name, "driver": "overlay", "labels": {"made-by": "kvnet demo"}})
        except NameTaken:
            continue
    raise Unfit("the store is full of demo networks", fix="kvnet network prune")


async def _prove(lab: Lab, network: Network, options: Options, say: Callable[[str], None]) -> Report:
    took = await _attach_all(lab, network)
    say(f"{len(took)} workloads attached")
    pings: list[PingResult] = []
    first = None
    for source, target in permutations(lab.workloads.values(), 2):
        for address in target.endpoints[network["id"]]["addresses"]:
            answer = await lab.ping(source.name, address)
            first = first or (time.monotonic() - options.started if answer.ok else None)
            pings.append(PingResult(source.name, target.name, address, answer.ok, answer.rtt_ms))
    say(f"{sum(p.ok for p in pings)} of {len(pings)} pings answered")
    greetings = await _greetings(lab, network)
    return Report(
        hosts=len(lab.hosts),
        store=options.store.split(":", 1)[0],
        network=await lab.client.get_network(network["id"]),
        endpoints=[w.endpoints[network["id"]] for w in lab.workloads.values()],
        pings=pings,
        greetings=greetings,
        expected_greetings=len(lab.workloads) - 1,
        attach_ms=took,
        seconds_to_first_ping=round(first, 3) if first is not None else -1.0,
        seconds=round(time.monotonic() - options.started, 3),
        urls={
            "dashboard": f"http://{options.listen}/",
            "api": f"http://{options.listen}/v1",
            "docs": f"http://{options.listen}/docs",
        },
    )


async def _attach_all(lab: Lab, network: Network) -> list[float]:
    """Attach one after another (each figure is that of one attach); wait until every host knows every other."""
    took = []
    for workload in list(lab.workloads.values()):
        before = time.perf_counter()
        await lab.attach(network["id"], workload.name)
        took.append(round((time.perf_counter() - before) * 1e3, 1))
    newest = max(w.endpoints[network["id"]]["version"] for w in lab.workloads.values())
    await lab.until_applied(network["id"], newest)
    return took


async def _greetings(lab: Lab, network: Network) -> list[str]:
    """What the first workload hears from each of the others over TCP."""
    first, *others = lab.workloads.values()
    heard = []
    for other in others:
        address = other.endpoints[network["id"]]["addresses"][0]
        try:
            heard.append(f"{first.name} hears from {address}: {await lab.greeting(first.name, address)!r}")
        except OSError:
            continue
    return heard


async def _take_down(lab: Lab, network: Network | None, options: Options) -> None:
    """Leave the store as it was found: it may be a site's own."""
    try:
        if network is not None:
            for workload in list(lab.workloads.values()):
                if network["id"] in workload.endpoints:
                    await lab.detach(network["id"], workload.name)
            await lab.client.delete_network(network["id"])
        if not options.is_own_store:
            await lab.forget_hosts()
    except ControllerUnreachable as error:
        if network is not None:
            print(f"the controller is gone, so network {network['name']} stays in its store: {error}", file=sys.stderr)


def _teller(options: Options) -> Callable[[str], None]:
    def say(text: str) -> None:
        print(f"[{time.monotonic() - options.started:5.2f} s] {text}", file=sys.stderr, flush=True)

    return say


def _print(report: Report, options: Options) -> None:
    print(json.dumps(report.as_json()) if options.as_json else f"\n{report.as_text()}", flush=True)


def _invitation(lab: Lab, report: Report) -> str:
    """What to try while it is up; every line can be pasted."""
    workload = next(iter(lab.workloads.values()))
    enter = f"nsenter -t {workload.process.pid if workload.process else os.getpid()} -U --preserve-credentials -n"
    if os.environ.get("SUDO_USER") or Path("/proc/self/uid_map").read_text().split()[2] != "1":
        enter = enter.replace(" -U --preserve-credentials", "")
    address = report.endpoints[-1]["address"]
    return "\n".join(
        (
            "",
            f"Dashboard  {report.urls['dashboard']}",
            f"API        {report.urls['api']}",
            f"Swagger    {report.urls['docs']}",
            "",
            "In another terminal:",
            f"  export KVNET_CONTROLLER={report.urls['api'].removesuffix('/v1')}",
            "  .venv/bin/kvnet network ls",
            f"  .venv/bin/kvnet network inspect {report.network['name']}",
            "  .venv/bin/kvnet events --watch",
            f"  {enter} ping {address}     # from {workload.name} to {report.endpoints[-1]['name']}",
            "",
            "Ctrl-C ends it and leaves nothing behind.",
        )
    )


def main(arguments: str) -> int:
    """The inner process."""
    plain: dict[str, Any] = json.loads(arguments)
    options = Options(**plain)
    parent = os.getppid()
    try:
        settle()
        return asyncio.run(inside(options))
    except KvnetError as error:
        return _refuse(error)
    except BaseExceptionGroup as group:
        matched, rest = group.split(KvnetError)
        if matched is None or rest is not None:
            raise
        return _refuse(_first(matched))
    finally:
        if os.getppid() != parent:  # it was killed, and cannot clean up any more
            shutil.rmtree(options.directory, ignore_errors=True)


def _refuse(error: KvnetError) -> int:
    print(f"Error: {error.detail}" + (f"\nFix: {error.fix}" if error.fix else ""), file=sys.stderr)
    return 1


def _first(group: BaseExceptionGroup[KvnetError]) -> KvnetError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
