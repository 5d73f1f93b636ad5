"""Some hundred workers in one process, led line by line from stdin: `python -m bench.scale.herd`.

Each is the product's `Worker` with its own client of the controller; only its kernel is in memory. A line of JSON
comes in, one goes out. Chooses no figures.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TextIO

from backends.open import open_store
from bench.scale.host import BOOT, SimulatedHost
from kvnet import codec
from worker.agent import Worker
from worker.attachments import FOLDER, ROOM, Phase, Record
from worker.controller import HttpController
from worker.disk import StateDir
from worker.log import Log
from worker.ports import Time
from worker.settings import Settings, Timing
from worker.tidying import GC_THRESHOLDS, SWITCH_INTERVAL_S
from worker.underlay import Underlay

POLL_S = 0.005
AT_ONCE = 32  # workers of a process that start at the same time; the machine has two cores for all of them
# A host compares its whole kernel with what should be there once a minute, in its own time; here a thousand of these
# passes would share two cores with what is measured. What one costs is told beside.
FULL_PASS_S = 900.0
READY_POLL_S = 0.1
LONGEST_LINE = 1 << 26
DECODED = 100_000


@dataclass(slots=True)
class Member:
    host: SimulatedHost
    worker: Worker
    task: asyncio.Task[None]


class Herd:
    def __init__(self, stack: AsyncExitStack, folder: Path, log: TextIO) -> None:
        self._stack = stack
        self._folder = folder
        self._log = log
        self._members: dict[str, Member] = {}

    def commands(self) -> Mapping[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]:
        return {
            "start": self.start,
            "expect": self.expect,
            "arrivals": self.arrivals,
            "attach": self.attach,
            "usage": self.usage,
            "until_applied": self.until_applied,
        }

    async def start(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Every worker of `hosts`; back when each has built all that it knows of."""
        began, cpu = time.monotonic(), time.process_time()
        starting: list[Member] = []
        deadline = time.monotonic() + asked["patience_s"]
        for host in asked["hosts"]:
            while len(starting) >= AT_ONCE:
                starting = await _unready(starting, deadline)
            starting.append(await self._start(host, asked["controller"], asked["ttl_s"]))
        while starting:
            starting = await _unready(starting, deadline)
        ready = time.monotonic()
        gc.collect()
        gc.freeze()
        return {"began": began, "ready_at": ready, "cpu_s": time.process_time() - cpu}

    async def _start(self, told: dict[str, Any], controller_url: str, ttl_s: float) -> Member:
        host = SimulatedHost(told["name"], told["underlay"])
        state = StateDir.open(self._folder / host.name)
        self._stack.callback(state.close)
        for endpoint in told["attached"]:
            _remember(state, host, endpoint)
        clock = Time()
        store = await self._stack.enter_async_context(await open_store(controller_url, must_answer=False, sweeps=False))
        controller = HttpController(controller_url, time=clock)
        self._stack.push_async_callback(controller.close)
        timing = Timing(ttl_s=ttl_s, attach_s=60.0, full_pass_s=FULL_PASS_S)
        settings = Settings(controller_url, host.name, Underlay(host.address), state.path, timing=timing)
        log = Log(self._log, level="warning")
        worker = Worker(settings, store, controller, host, host, host, state, time=clock, log=log)
        await worker.start()
        task = asyncio.create_task(worker.run())
        self._stack.push_async_callback(_end, task)
        member = self._members[host.name] = Member(host, worker, task)
        return member

    async def expect(self, asked: dict[str, Any]) -> dict[str, Any]:
        addresses = frozenset(ip_address(address).packed for address in asked["addresses"])
        for member in self._chosen(asked):
            member.host.expect(addresses)
        return {}

    async def arrivals(self, asked: dict[str, Any]) -> dict[str, Any]:
        """When the last of what is expected arrived, for each host, as `time.monotonic` counts on this machine."""
        members = self._chosen(asked)
        deadline = time.monotonic() + asked["patience_s"]
        while not all(m.host.is_there for m in members) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        late = [member.host.name for member in members if not member.host.is_there]
        at = [max(member.host.arrived.values(), default=0.0) for member in members if member.host.is_there]
        return {"at": at, "late": late}

    async def attach(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`each` workloads on each host into its network, all at once."""
        attaches = []
        for member in self._chosen(asked):
            for number in range(asked["each"]):
                path = f"/run/netns/{asked['prefix']}-{number}"
                member.host.add_namespace(path)
                message = {"network": asked["networks"][member.host.name], "netns": path, "name": path[11:]}
                message["name"] = f"{asked['prefix']}-{member.host.name}-{number}"
                attaches.append(member.worker.operations()["attach"](message))
        began = time.monotonic()
        answers = await asyncio.gather(*attaches)
        versions: dict[str, int] = {}
        for answer in answers:
            endpoint = answer["endpoint"]
            versions[endpoint["network"]] = max(versions.get(endpoint["network"], 0), endpoint["version"])
        return {"began": began, "ended": time.monotonic(), "versions": versions}

    async def until_applied(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Every host that takes part in these networks has built them up to these versions."""
        versions: dict[str, int] = asked["versions"]
        deadline = time.monotonic() + asked["patience_s"]
        behind = self._chosen(asked)
        while behind and time.monotonic() < deadline:
            behind = [member for member in behind if not _has_applied(member, versions)]
            if behind:
                await asyncio.sleep(POLL_S)
        return {"at": time.monotonic(), "behind": [member.host.name for member in behind]}

    async def usage(self, asked: dict[str, Any]) -> dict[str, Any]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "cpu_s": used.ru_utime + used.ru_stime,
            "rss_mb": _rss_mb(),
            "operations": sum(member.host.operations for member in self._members.values()),
            "passes": sum(member.worker.reconciler.statistics.passes for member in self._members.values()),
            "refused": sum(len(member.host.failures) for member in self._members.values()),
        }

    def _chosen(self, asked: dict[str, Any]) -> list[Member]:
        names = asked.get("hosts")
        return [member for name, member in self._members.items() if names is None or name in names]


def _remember(state: StateDir, host: SimulatedHost, endpoint: dict[str, Any]) -> None:
    """What an earlier life of the worker has noted of a workload that still runs."""
    path = f"/run/netns/{endpoint['id']}"
    host.add_namespace(path)
    record = Record(
        endpoint["id"],
        endpoint["network_name"],
        endpoint["name"],
        path,
        "eth0",
        Phase.ATTACHED,
        0.0,
        network_id=endpoint["network"],
        identity=path,
        boot_id=BOOT,
        answer=endpoint,
    )
    state.write(f"{FOLDER}/{endpoint['id']}", codec.encode(record), durable=False, room=ROOM)


def _has_applied(member: Member, versions: Mapping[str, int]) -> bool:
    present = member.worker.view.network_ids
    return all(member.worker.reconciler.is_up_to(id_, version) for id_, version in versions.items() if id_ in present)


async def _unready(starting: list[Member], deadline: float) -> list[Member]:
    """
    Raises:
        TimeoutError: with what the first of them waits for.
    """
    if time.monotonic() > deadline:
        raise TimeoutError(f"{len(starting)} workers are not ready; {_waits_for(starting[0].worker)}")
    await asyncio.sleep(READY_POLL_S)
    return [member for member in starting if not _is_ready(member)]


def _is_ready(member: Member) -> bool:
    if member.task.done():
        member.task.result()
    worker = member.worker
    is_known = worker.registration.is_done and worker.lifeline.is_open and worker.view.is_in_step
    return is_known and worker.reconciler.has_seen_everything and _is_built(worker)


def _waits_for(worker: Worker) -> str:
    facts = {
        "registered": worker.registration.is_done,
        "session": worker.lifeline.is_open,
        "in_step": worker.view.is_in_step,
        "looked": worker.reconciler.has_seen_everything,
        "problem": worker.lifeline.problem,
        "doubt": worker.source.doubt(),
        "networks": {
            id_: (worker.view.version(id_), worker.reconciler.observed().get(id_)) for id_ in worker.view.network_ids
        },
    }
    return f"{worker.settings.host}: {facts}"


def _is_built(worker: Worker) -> bool:
    return all(worker.reconciler.is_up_to(id_, worker.view.version(id_)) for id_ in worker.view.network_ids)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _serve(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(partial(asyncio.StreamReaderProtocol, reader), sys.stdin)
    async with AsyncExitStack() as stack:
        log = stack.enter_context((folder / f"herd-{os.getpid()}.log").open("a"))
        commands = Herd(stack, folder, log).commands()
        while line := await reader.readline():
            asked = json.loads(line)
            print(json.dumps(await commands[asked["do"]](asked)), flush=True)
        os._exit(0)  # a thousand workers need not be taken apart


def share_decoded() -> None:
    """Hosts of one process read equal values: each is decoded once, and all have the same object, which none changes.

    A host of its own pays for each (what it pays is measured elsewhere); here it would be a thousand times the same
    work on two cores, and seven gigabytes.
    """
    plain = codec.decode

    @lru_cache(maxsize=DECODED)
    def decode(kind: type[Any], data: bytes) -> Any:
        return plain(kind, data)

    setattr(codec, "decode", decode)  # noqa: B010 - for this process only


def main(argv: list[str]) -> None:
    share_decoded()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    asyncio.run(_serve(Path(argv[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
