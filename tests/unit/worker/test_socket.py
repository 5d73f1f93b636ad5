"""The worker's socket and its client, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import stat
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kvnet.errors import HostFenced, KvnetError, OutcomeUnknown, PortInUse, Unfit, WorkerUnreachable
from kvnet.local import WorkerClient, attach_request, request
from worker.log import Log
from worker.server import MAX_CONNECTIONS, MAX_LINE, Server, listen

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def echo(message: Mapping[str, Any]) -> dict[str, Any]:
    return dict(message)


async def refuse(_: Mapping[str, Any]) -> dict[str, Any]:
    raise HostFenced("not now", fix="later")


async def break_down(_: Mapping[str, Any]) -> dict[str, Any]:
    raise ZeroDivisionError("a fault")


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "w.sock"
    operations = {"echo": echo, "attach": echo, "detach": echo, "status": refuse, "plan": break_down}
    server = Server(await listen(path), operations, log=Log(io.StringIO()))
    task = asyncio.create_task(server.run())
    yield path
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def raw(path: Path, data: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
    line = await reader.readline()
    writer.close()
    answer: dict[str, Any] = json.loads(line)
    return answer


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_only_root_may_use_it(path: Path) -> None:
    assert mode_of(path) == 0o600


async def test_a_request_gets_its_result_and_a_problem_comes_back_as_its_error(path: Path) -> None:
    client = WorkerClient(str(path))
    answer = await client.attach("n", "c1", "c1", aliases=["a"])
    assert answer == {"op": "attach", "network": "n", "netns": "c1", "name": "c1", "aliases": ["a"]}
    with pytest.raises(HostFenced, match="not now") as refusal:
        await client.status()
    assert refusal.value.fix == "later"


async def test_a_fault_in_one_operation_does_not_end_the_worker(path: Path) -> None:
    client = WorkerClient(str(path))
    with pytest.raises(KvnetError, match="ZeroDivisionError"):
        await client.plan()
    assert await client.detach(id="x") == {"op": "detach", "id": "x"}


@pytest.mark.parametrize(
    "line", [b"not json\n", b"[]\n", b'{"op": 1}\n', b'{"op": "no-such"}\n', b"[" * 5000 + b"\n", b"\xff\n"]
)
async def test_what_is_not_a_request_is_told_so(path: Path, line: bytes) -> None:
    answer = await raw(path, line)
    assert not answer["ok"]
    assert answer["error"]["code"] == "invalid"


async def test_a_line_that_is_too_long_ends_its_connection_only(path: Path) -> None:
    answer = await raw(path, b"x" * (MAX_LINE * 3))
    assert "bytes" in answer["error"]["detail"]
    assert await WorkerClient(str(path)).detach(id="x")


async def test_too_many_callers_are_told_to_come_back(path: Path) -> None:
    held = [await asyncio.open_unix_connection(str(path)) for _ in range(MAX_CONNECTIONS)]
    for _, writer in held:
        writer.write(b'{"op":"echo"}\n')
    for reader, _ in held:
        await reader.readline()
    with pytest.raises(WorkerUnreachable, match="callers already"):
        await WorkerClient(str(path)).detach(id="x")
    for _, writer in held:
        writer.close()


async def test_a_second_worker_is_refused_and_a_dead_ones_socket_is_replaced(path: Path, tmp_path: Path) -> None:
    with pytest.raises(PortInUse, match="answering"):
        await listen(path)
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    (await listen(left)).close()


async def test_a_file_that_is_no_socket_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(Unfit):
        await listen(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


async def test_nobody_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(WorkerUnreachable, match=r"no worker answers at .*none\.sock"):
        await WorkerClient(str(tmp_path / "none.sock")).ping()
    with pytest.raises(WorkerUnreachable):
        request(str(tmp_path / "none.sock"), {"op": "ping"})


async def test_a_lost_answer_is_not_taken_for_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "rude.sock"

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_unix_server(hang_up, str(path)):
        with pytest.raises(OutcomeUnknown):
            await WorkerClient(str(path)).detach(id="x")


async def test_the_client_without_a_loop_says_the_same(path: Path) -> None:
    answers: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: answers.append(request(str(path), attach_request("n", "c1", "c1"))))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert answers == [{"op": "attach", "network": "n", "netns": "c1", "name": "c1"}]


async def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unfit, match="cannot be made"):
        await listen(tmp_path / "file" / "w.sock")
