"""The API client where a real controller cannot be made to do it: lost answers, passing failures, broken streams."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import pytest

from kvnet.client import Client
from kvnet.errors import ControllerUnreachable, Gone, Invalid, NameTaken, NotFound, OutcomeUnknown, StoreUnavailable
from kvnet.http import Lost, NotSent, Reply

pytestmark = pytest.mark.anyio

Answer = Reply | Exception


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: bytes
    timeout_s: float
    headers: Mapping[str, str]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)


class Script:
    """A transport that answers requests one after another from a list, and remembers them."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.slept_s: list[float] = []

    async def request(
        self, method: str, path: str, body: bytes, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> Reply:
        self.requests.append(Request(method, path, body, timeout_s, headers or {}))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stream(
        self,
        method: str,
        path: str,
        body: bytes,
        answer_s: float,
        silence_s: float | None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[tuple[int, bytes | None], None]:
        answer = await self.request(method, path, body, answer_s, headers)
        yield answer.status, None
        for line in answer.body.split(b"\n"):
            yield answer.status, line

    async def close(self) -> None:
        """Nothing is open."""

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)

    def client(self, url: str = "http://controller:7480") -> Client:
        return Client(url, transport=self, rng=random.Random(1), sleep=self.sleep)

    def bodies(self) -> list[dict[str, object]]:
        return [json.loads(request.body) for request in self.requests]


def problem(code: str, status: int) -> Reply:
    said = {"code": code, "status": status, "title": "T", "detail": "D", "instance": "9"}
    return Reply(status, json.dumps(said).encode())


def ok(**body: object) -> Reply:
    return Reply(200, json.dumps(body).encode())


def stream(text: str) -> Reply:
    return Reply(200, text.encode())


async def test_a_read_is_repeated_until_it_is_answered() -> None:
    script = Script(Lost("reset"), problem("store-unavailable", 503), ok(id="n1"))

    async with script.client() as client:
        assert (await client.get_network("x"))["id"] == "n1"

    assert len(script.slept_s) == 2
    assert 0.05 <= script.slept_s[0] <= 0.1
    assert 0.1 <= script.slept_s[1] <= 0.2


async def test_repeats_are_bounded() -> None:
    script = Script(*[NotSent("refused") for _ in range(9)])

    async with script.client() as client:
        with pytest.raises(ControllerUnreachable, match="no answer from the controller at http://controller:7480"):
            await client.get_network("x")

    assert len(script.requests) == 4


async def test_a_creation_whose_answer_was_lost_is_repeated_with_the_same_id() -> None:
    script = Script(Lost("late"), ok(id="e1"))

    async with script.client() as client:
        await client.create_endpoint("net", {"host": "h1", "name": "c1"})

    first, second = script.bodies()
    assert first == second
    assert len(str(first["id"])) == 16


async def test_a_creation_with_holds_has_their_id_and_is_repeated() -> None:
    script = Script(Lost("reset"), ok(id="x"))

    async with script.client() as client:
        await client.create_network({"holds": ["0123456789ab"], "naming": True})

    assert script.bodies() == [{"holds": ["0123456789ab"], "naming": True}] * 2


async def test_a_hold_whose_answer_was_lost_is_not_asked_for_twice_but_released_twice_if_need_be() -> None:
    script = Script(Lost("reset"), Lost("reset"), Reply(204, b""))

    async with script.client() as client:
        with pytest.raises(OutcomeUnknown):
            await client.hold_subnet({"host": "h1"})
        await client.release_hold("0123456789ab")

    assert [request.method for request in script.requests] == ["POST", "DELETE", "DELETE"]


async def test_a_deletion_whose_answer_was_lost_is_not_repeated() -> None:
    script = Script(Lost("reset"))

    async with script.client() as client:
        with pytest.raises(OutcomeUnknown, match="DELETE /v1/networks/x was lost"):
            await client.delete_network("x")


async def test_a_deletion_that_was_certainly_not_carried_out_is_repeated() -> None:
    script = Script(NotSent("refused"), problem("store-unavailable", 503), Reply(204, b""))

    async with script.client() as client:
        await client.delete_network("x", version=7)

    assert [request.headers["if-match"] for request in script.requests] == ['"7"'] * 3


async def test_who_waits_for_other_hosts_is_given_the_time() -> None:
    script = Script(ok(id="e1"))

    async with script.client() as client:
        await client.create_endpoint("net", {"host": "h1", "name": "c1"}, wait_s=30)

    assert script.requests[0].timeout_s == 60.0


async def test_a_gateway_timeout_for_a_deletion_is_told_and_not_repeated() -> None:
    script = Script(problem("outcome-unknown", 504))

    async with script.client() as client:
        with pytest.raises(OutcomeUnknown):
            await client.delete_network("x")


async def test_a_refusal_is_raised_as_what_it_is() -> None:
    script = Script(problem("name-taken", 409), problem("not-found", 404))

    async with script.client() as client:
        with pytest.raises(NameTaken) as taken:
            await client.create_network({"name": "x"})
        with pytest.raises(NotFound):
            await client.get_network("x")

    assert taken.value.request_id == "9"
    assert script.slept_s == []


async def test_the_last_failure_is_the_one_that_is_told() -> None:
    script = Script(*[problem("store-unavailable", 503) for _ in range(4)])

    async with script.client() as client:
        with pytest.raises(StoreUnavailable):
            await client.status()


@pytest.mark.parametrize(
    "answer",
    [Reply(200, b"<html>"), Reply(200, b"[1]")],
)
async def test_somebody_else_at_the_address_is_not_a_controller(answer: Reply) -> None:
    async with Script(answer).client() as client:
        with pytest.raises(ControllerUnreachable, match="not as a kvnet controller does"):
            await client.status()


async def test_an_answer_that_is_no_problem_is_still_told() -> None:
    async with Script(Reply(404, b"nginx")).client() as client:
        with pytest.raises(Exception, match="answered 404 without saying why"):
            await client.status()


async def test_a_list_is_read_page_by_page_with_the_same_filters() -> None:
    script = Script(
        ok(items=[{"name": "a"}], next_cursor="c1", revision=3), ok(items=[{"name": "b"}], next_cursor=None)
    )

    async with script.client() as client:
        names = [network["name"] async for network in client.networks(driver="overlay")]

    assert names == ["a", "b"]
    assert [request.query for request in script.requests] == [
        {"limit": ["500"], "driver": ["overlay"]},
        {"limit": ["500"], "driver": ["overlay"], "cursor": ["c1"]},
    ]


async def test_a_bulk_creation_answers_item_by_item() -> None:
    answers = [{"status": 201, "endpoint": {"id": "e1"}}, {"status": 409, "problem": {"code": "address-taken"}}]
    script = Script(ok(items=answers))

    async with script.client() as client:
        made, refused = await client.create_endpoints("n", [{"host": "h", "name": "a"}, {"host": "h", "name": "b"}])

    assert isinstance(made, dict)
    assert isinstance(refused, Exception)
    assert getattr(refused, "code", "") == "address-taken"


async def test_more_than_the_limit_at_once_is_refused_before_it_is_sent() -> None:
    async with Script().client() as client:
        with pytest.raises(Invalid, match="501 endpoints at once"):
            await client.create_endpoints("n", [{"host": "h", "name": "a"}] * 501)


async def test_a_name_cannot_reach_another_resource() -> None:
    script = Script(ok(), ok())

    async with script.client() as client:
        await client.get_network("h1?force=true")
        await client.get_endpoint("n", "a#b")
        for wrong in ("", ".", "..", "../hosts/h1", "a/b"):
            with pytest.raises(Invalid):
                await client.get_network(wrong)

    paths = [request.path for request in script.requests]
    assert paths == ["/v1/networks/h1%3Fforce%3Dtrue", "/v1/networks/n/endpoints/a%23b"]


async def test_a_controller_behind_a_proxy_may_live_below_a_path() -> None:
    script = Script(ok())

    async with script.client("https://proxy.example:8443/kvnet/") as client:
        await client.status()

    assert script.requests[0].path == "/kvnet/v1/status"


async def test_the_token_goes_along() -> None:
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}", token="secret") as client:
            await client.status()

    assert b"\r\nauthorization: Bearer secret\r\n" in heard[0]


@pytest.mark.parametrize("url", ["", "controller:7480", "ftp://x", "unix://", "http://"])
def test_what_is_no_address_of_a_controller_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="is not the address of a controller"):
        Client(url)


async def test_a_broken_stream_is_taken_up_after_the_last_whole_revision() -> None:
    script = Script(
        stream('event: change\nid: 5\ndata: {"revision":5}\n\nevent: change\ndata: {"revision":6}\n\n'),
        stream('event: change\nid: 6\ndata: {"revision":6}\n\nevent: bookmark\nid: 9\ndata: {"revision":9}\n\n'),
    )

    async with script.client() as client:
        seen = [(event.type, event.revision) async for event in client.events(since=0, follow=False)]

    assert seen == [("change", 5), ("change", 6), ("change", 6), ("bookmark", 9)]
    assert [request.query["since"] for request in script.requests] == [["0"], ["5"]]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: problem("gone", 410),
        lambda: stream('event: gone\ndata: {"detail":"too slow"}\n\n'),
    ],
)
async def test_a_position_that_is_too_old_ends_the_stream(answer: Callable[[], Reply]) -> None:
    async with Script(answer()).client() as client:
        with pytest.raises(Gone):
            [event async for event in client.events(since=1)]


async def test_a_stream_that_never_says_anything_is_given_up() -> None:
    script = Script(*[stream("") for _ in range(4)])

    async with script.client() as client:
        with pytest.raises(ControllerUnreachable, match="again and again"):
            [event async for event in client.events()]


async def test_a_stream_that_has_worked_outlives_a_restart_of_the_controller() -> None:
    script = Script(
        stream('event: change\nid: 5\ndata: {"revision":5}\n\n'),
        *[NotSent("refused") for _ in range(5)],
        problem("store-unavailable", 503),
        stream('event: bookmark\nid: 7\ndata: {"revision":7}\n\n'),
    )

    async with script.client() as client:
        seen = [event.revision async for event in client.events(follow=False)]

    assert seen == [5, 7]
    assert sum(script.slept_s) < 10


async def test_damaged_events_count_as_a_broken_stream() -> None:
    script = Script(*[stream("event: change\nid: 5\ndata: {\n\n") for _ in range(4)])

    async with script.client() as client:
        with pytest.raises(ControllerUnreachable, match="damaged"):
            [event async for event in client.events()]


async def test_a_connectivity_test_whose_answer_was_lost_is_not_begun_a_second_time_while_it_runs() -> None:
    script = Script(Lost("connection reset"), problem("probe-busy", 409))
    with pytest.raises(OutcomeUnknown):
        await script.client().test_connectivity({})

    assert len(script.requests) == 1
