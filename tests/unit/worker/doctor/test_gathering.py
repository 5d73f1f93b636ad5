"""What is asked of others: a clock by the date of an answer, a store, a controller, Docker; and who does not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from email.utils import formatdate
from pathlib import Path

import pytest

from backends.memory import MemoryStore
from backends.store import Entry, Put, Unavailable
from kvnet import keys
from worker.doctor import gather_host, gather_kernel, gather_services
from worker.doctor.checks_services import check_clock, check_controller, check_store
from worker.doctor.checks_state import check_docker, check_state
from worker.doctor.ethtool import features_of
from worker.doctor.report import Check, Status

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def answering(
    path: Path, bodies: dict[str, str], *, ahead_s: float = 0.0, status: int = 200
) -> AsyncIterator[str]:
    """A server whose clock is ahead of ours."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        body = bodies.get(request.split()[1].decode(), "{}").encode()
        date = formatdate(time.time() + ahead_s, usegmt=True)
        head = f"HTTP/1.1 {status} X\r\ndate: {date}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, str(path)):
        yield f"unix://{path}"


VERSION = {"/v1/version": '{"version": "0.1.0"}', "/v1/status": '{"trouble": null}'}


def by_id(checks: object) -> dict[str, Check]:
    return {check.id: check for check in checks}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("ahead_s", "expected"), [(0.0, Status.OK), (-20.0, Status.WARN), (3600.0, Status.FAIL), (-86400.0, Status.FAIL)]
)
async def test_a_clock_that_differs_from_the_controllers_is_found_by_its_answers_date(
    tmp_path: Path, ahead_s: float, expected: Status
) -> None:
    async with answering(tmp_path / "c", VERSION, ahead_s=ahead_s) as url:
        _, clock = await gather_services.controller(url)

    check = by_id(check_clock(clock))["clock.offset"]
    assert check.status is expected, check
    if ahead_s:
        assert ("behind" if ahead_s > 0 else "ahead of") in check.found
        assert clock.offset_s == pytest.approx(-ahead_s, abs=2.0)


async def test_a_controller_tells_its_version_and_its_trouble(tmp_path: Path) -> None:
    told = {"/v1/version": '{"version": "9.1.0"}', "/v1/status": '{"trouble": {"detail": "the store went back"}}'}
    async with answering(tmp_path / "c", told) as url:
        found, _ = await gather_services.controller(url)

    checks = by_id(check_controller(found, own="0.1.0"))
    assert checks["controller.reachable"].status is Status.OK
    assert checks["controller.trouble"].found == "the store went back"
    assert checks["controller.versions"].status is Status.WARN


@pytest.mark.parametrize("warnings", ["7", "[7]", "[{}]", '[{"code": 7}]', '[{"code": "later"}]', "null"])
async def test_warnings_that_are_none_or_not_known_here_are_passed_over(tmp_path: Path, warnings: str) -> None:
    told = {"/v1/version": '{"version": "0.1.0"}', "/v1/status": f'{{"warnings": {warnings}}}'}
    async with answering(tmp_path / "c", told) as url:
        found, _ = await gather_services.controller(url)

    assert {check.status for check in check_controller(found, own="0.1.0")} == {Status.OK}


async def test_of_several_controllers_one_that_answers_is_enough_and_the_others_are_named(tmp_path: Path) -> None:
    async with answering(tmp_path / "c", VERSION) as url:
        found, clock = await gather_services.controller(f"unix://{tmp_path}/none,{url}")

    checks = by_id(check_controller(found, own="0.1.0"))
    assert checks["controller.reachable"].status is Status.OK
    assert f"unix://{tmp_path}/none" in checks["controller.others"].found
    assert clock.offset_s is not None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # servers that keep silent do so in real time
async def test_controllers_are_asked_at_once_however_many_keep_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.doctor.gather_services.ANSWER_S", 0.5)

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    began = time.monotonic()
    async with AsyncExitStack() as stack:
        paths = [tmp_path / f"silent-{number}" for number in range(8)]
        for path in paths:
            await stack.enter_async_context(await asyncio.start_unix_server(keep_silent, str(path)))
        url = await stack.enter_async_context(answering(tmp_path / "c", VERSION))
        found, _ = await gather_services.controller(",".join([*(f"unix://{path}" for path in paths), url]))

    assert found.version == "0.1.0"
    assert len(found.silent) == 8
    assert time.monotonic() - began < 2.5  # one after the other it would be 4 s


async def test_an_answer_without_end_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.doctor.gather_services.MAX_BODY", 1000)
    async with answering(tmp_path / "c", {"/v1/version": '{"version": "' + 2000 * "x" + '"}'}) as url:
        found, _ = await gather_services.controller(url)

    assert found.problem == "the answer has more than 1000 bytes"


async def test_who_does_not_answer_or_is_no_controller_is_a_finding_and_no_exception(tmp_path: Path) -> None:
    for url in (f"unix://{tmp_path}/none", "http://127.0.0.1:1", "nonsense"):
        found, clock = await gather_services.controller(url)
        assert by_id(check_controller(found, own="0.1.0"))["controller.reachable"].status is Status.FAIL
        assert clock.offset_s is None
    async with answering(tmp_path / "web", {"/v1/version": "<html>"}, status=404) as url:
        found, _ = await gather_services.controller(url)
    assert by_id(check_controller(found, own="0.1.0"))["controller.reachable"].status is Status.FAIL


@pytest.mark.parametrize("url", ["http://me:hidden@127.0.0.1:1", "nonsense://me:hidden@127.0.0.1"])
async def test_a_password_in_the_address_of_a_controller_is_not_told(url: str) -> None:
    found, _ = await gather_services.controller(url)

    assert "hidden" not in repr(list(check_controller(found, own="0.1.0")))


class Away(MemoryStore):
    async def get(self, key: str) -> Entry | None:
        raise Unavailable("connection refused")


async def test_a_store_is_timed_and_looked_into() -> None:
    store = MemoryStore()
    checks = by_id(check_store(await gather_services.store(store, "memory://")))
    assert checks["store.cluster"].status is Status.WARN
    await store.commit([], [Put(keys.CLUSTER, b"{}")])
    checks = by_id(check_store(await gather_services.store(store, "memory://")))
    assert {check.status for check in checks.values()} == {Status.OK}
    away = by_id(check_store(await gather_services.store(Away(), "etcd://e1")))
    assert away["store.reachable"].status is Status.FAIL
    assert "connection refused" in away["store.reachable"].found


async def test_docker_is_asked_for_what_matters_to_kvnet(tmp_path: Path) -> None:
    told = {
        "/version": '{"Version": "29.0.1", "ApiVersion": "1.52"}',
        "/info": '{"LiveRestoreEnabled": false, "Swarm": {"LocalNodeState": "active"},'
        ' "FirewallBackend": {"Driver": "nftables"}}',
    }
    socket = tmp_path / "docker.sock"
    async with answering(socket, told):
        found = await gather_services.docker(True, socket, tmp_path / "plugin.sock")

    checks = by_id(check_docker(found))
    assert checks["docker.engine"].found == "Docker 29.0.1 (API 1.52)"
    assert {id_ for id_, check in checks.items() if check.status is not Status.OK} == {
        "docker.plugin",
        "docker.live_restore",
        "docker.firewall",
        "docker.swarm",
    }
    gone = await gather_services.docker(True, socket, None)
    assert by_id(check_docker(gone))["docker.engine"].status in (Status.FAIL, Status.SKIPPED)


def test_a_state_directory_is_looked_at_without_writing_to_it(tmp_path: Path) -> None:
    before = list(tmp_path.iterdir())

    checks = by_id(check_state(gather_services.state(tmp_path, tmp_path / "none")))

    assert checks["state.directory"].status is Status.OK
    assert checks["state.socket"].status is Status.SKIPPED
    assert list(tmp_path.iterdir()) == before
    assert by_id(check_state(gather_services.state(tmp_path / "none", None)))["state.directory"].status is Status.OK


def test_links_and_settings_of_this_machine_can_be_read() -> None:
    links = {link.name: link for link in gather_host.links()}
    assert links["lo"].mtu > 0
    assert gather_host.settings("lo").values["net/ipv4/ip_forward"] in ("0", "1")
    assert gather_host.holders() is not None
    assert gather_host.checksum_errors() >= 0
    assert "rx-checksum" in features_of("lo")
    assert features_of("nowhere") == {}


def test_a_program_that_hangs_fails_or_says_too_much_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather_kernel, "PROGRAM_S", 0.2)
    monkeypatch.setattr(gather_kernel, "LONGEST_ANSWER", 10)

    assert gather_kernel.run(["echo", "short"]) == "short\n"
    assert gather_kernel.run(["echo", "much too long"]) is None
    assert gather_kernel.run(["sleep", "60"]) is None
    assert gather_kernel.run(["false"]) is None
    assert gather_kernel.run(["/nowhere/at/all"]) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://control:7480", True),
        ("http://[fd00::1]:7480", True),
        ("http://me:hidden@198.51.100.1:7480", True),
        ("https://control:7480", False),
        ("http://127.0.0.2:7480", False),
        ("http://[::1]:7480", False),
        ("http://localhost:7480", False),
        ("unix:///run/kvnet/controller.sock", False),
        ("http://[", False),
    ],
)
def test_what_is_sent_to_a_controller_can_be_read_on_the_way_beyond_loopback_and_without_tls(
    url: str, expected: bool
) -> None:
    assert gather_services.is_in_clear(url) is expected


async def test_a_token_that_is_sent_in_clear_is_told_of_each_controller_and_without_passwords() -> None:
    urls = "http://me:hidden@nobody.invalid:1, http://127.0.0.1:1"
    found, _ = await gather_services.controller(urls, token="kvnet_0_x")
    without, _ = await gather_services.controller(urls)

    assert len(found.in_clear) == 1
    assert "nobody.invalid" in found.in_clear[0]
    assert "hidden" not in repr(found)
    assert without.in_clear == ()
    assert by_id(check_controller(found, own="0.1.0"))["controller.encrypted"].status is Status.WARN
