"""The worker's own client of the controller, against a real one and against answers that get lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from kvnet.client import Client
from kvnet.errors import ControllerUnreachable, Invalid, NameTaken, NotFound, OutcomeUnknown, SubnetTaken
from tests.api.under_test import Api, register
from worker.controller import ATTEMPTS, HttpController
from worker.ports import Time

pytestmark = pytest.mark.anyio

FOUND = b'HTTP/1.1 201 Created\r\ncontent-length: 13\r\n\r\n{"id": "e-1"}'


async def no_pause(_: float) -> None:
    return None


def controller_at(url: str) -> HttpController:
    return HttpController(url, time=Time(sleep=no_pause))


@asynccontextmanager
async def scripted(answer: Callable[[int], bytes]) -> AsyncIterator[tuple[HttpController, list[bytes]]]:
    """A server that reads each request whole and then says what the script says; b"" hangs up.

    Whoever is hung up on asks whether TLS is spoken: that is no request.
    """
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)  # else hanging up takes the answer along
            heard.append(head)
            writer.write(answer(len(heard)))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    controller = controller_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield controller, heard
    finally:
        await controller.close()
        server.close()


async def test_a_network_of_dockers_is_made_from_what_was_held_and_named_last(api: Api) -> None:
    await register(api.url, "worker-host")
    controller = controller_at(api.url)
    held = await controller.hold_subnet({"host": "worker-host", "version": 4})
    with pytest.raises(SubnetTaken) as taken:
        await controller.hold_subnet({"host": "h1", "version": 4, "cidr": held["cidr"], "force": True})
    made = await controller.create_network({"holds": [held["id"]], "naming": True, "docker": {"host": "worker-host"}})
    named = await controller.name_network(made["id"], {"name": api.fresh("web")})
    other = await controller.create_network({"id": "0123456789ab", "naming": True})
    with pytest.raises(NameTaken) as refused:
        await controller.name_network(other["id"], {"name": named["name"]})
    await controller.release_hold(held["id"])
    await controller.delete_network(other["id"])
    with pytest.raises(NotFound):
        await controller.name_network(other["id"], {"name": api.fresh("web")})
    await controller.close()

    assert taken.value.context["hold"] is True
    assert (taken.value.context["host"], taken.value.context["cidr"]) == ("worker-host", held["cidr"])
    assert refused.value.context["network"] == made["id"] == held["id"]
    assert (made["state"], named["state"]) == ("naming", "active")


async def test_an_endpoint_is_made_and_removed(api: Api) -> None:
    await register(api.url, "worker-host")
    controller = controller_at(api.url)
    async with Client(api.url) as client:
        network = await client.create_network({"name": "lean"})
        made = await controller.create_endpoint("lean", {"id": "lean-1", "host": "worker-host", "name": "c1"})
        assert made["network"] == network["id"]
        await controller.delete_endpoint(network["id"], "lean-1")
        with pytest.raises(NotFound) as refusal:
            await controller.delete_endpoint(network["id"], "lean-1")
        assert refusal.value.fix
    await controller.close()


async def test_a_creation_whose_answer_was_lost_is_repeated() -> None:
    async with scripted(lambda number: b"" if number == 1 else FOUND) as (controller, heard):
        made = await controller.create_endpoint("n", {"id": "e-1", "host": "h1", "name": "c1"})
    assert made["id"] == "e-1"
    assert len(heard) == 2


async def test_a_removal_whose_answer_was_lost_is_not_repeated() -> None:
    async with scripted(lambda _: b"") as (controller, heard):
        with pytest.raises(OutcomeUnknown):
            await controller.delete_endpoint("n", "e-1")
    assert len(heard) == 1


async def test_what_was_not_written_is_repeated_a_bounded_number_of_times() -> None:
    body = b'{"code": "contention", "detail": "too many writers"}'
    answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    async with scripted(lambda _: answer) as (controller, heard):
        with pytest.raises(Exception, match="too many writers"):
            await controller.delete_endpoint("n", "e-1")
    assert len(heard) == ATTEMPTS


async def test_nobody_there_is_said_with_the_address() -> None:
    controller = controller_at("unix:///nowhere/c.sock")
    with pytest.raises(ControllerUnreachable, match=r"/nowhere/c\.sock"):
        await controller.create_endpoint("n", {"id": "e-1", "host": "h1", "name": "c1"})
    await controller.close()


async def test_whether_it_answers_is_told_without_an_error(api: Api) -> None:
    there, nowhere = controller_at(api.url), controller_at("unix:///nowhere/c.sock")
    assert await there.answers()
    assert not await nowhere.answers()
    async with scripted(lambda _: b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}") as (
        starting,
        heard,
    ):
        assert not await starting.answers()
    assert len(heard) == 1
    await there.close()
    await nowhere.close()


async def test_a_name_cannot_reach_another_resource() -> None:
    controller = controller_at("http://127.0.0.1:1")
    with pytest.raises(Invalid):
        await controller.delete_endpoint("n/endpoints/x", "e-1")
    await controller.close()


async def test_what_is_no_controller_is_refused_at_the_start() -> None:
    with pytest.raises(Invalid):
        controller_at("gopher://somewhere")


async def test_who_removed_endpoints_and_networks_is_known_from_one_question(api: Api) -> None:
    controller = controller_at(api.url)
    async with Client(api.url, request_id="the-making") as client:
        network = await client.create_network({"name": api.fresh("web"), "driver": "overlay"})
        made = [await client.create_endpoint(network["id"], {"host": "h1", "name": f"e{n}"}) for n in range(3)]
    for number, endpoint in enumerate(made[:2]):
        async with Client(api.url, request_id=f"the-removal-{number}") as client:
            await client.delete_endpoint(network["id"], endpoint["id"])
    names = [endpoint["id"] for endpoint in made]

    assert await controller.removed_by(network["id"], names) == ["the-removal-0", "the-removal-1", ""]

    async with Client(api.url, request_id="the-end") as client:
        await client.delete_endpoint(network["id"], made[2]["id"])
        await client.delete_network(network["id"])
    assert await controller.removed_by(network["id"], [network["id"], "never-there"]) == ["the-end", ""]
    await controller.close()
