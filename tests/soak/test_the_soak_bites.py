"""The soak's own eyes and hands: what it says was broken is broken, and what is wrong it finds."""

from __future__ import annotations

import ast
import io
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backends.open import open_store
from backends.store import Delete, Put
from kvnet import keys
from lab import namespaces
from lab.lab import open_lab
from lab.ping import ping
from tests.lab.chaos.facts import opened_eyes
from tests.lab.eye import by_hand
from tests.soak import verdict as judging
from tests.soak.bystanders import Pair, Window, judged, set_up
from tests.soak.churn import LABEL, User
from tests.soak.clocks import Clock
from tests.soak.eye import Watch, addresses_in
from tests.soak.faults import fill
from tests.soak.ledger import Ledger, Network, Standing
from tests.soak.settings import Options
from tests.soak.site import Soaked, open_soaked
from tests.soak.site import small_disk as mounted
from tests.soak.verdict import Verdict
from tests.soak.violations import Violations
from tests.soak.wire import BadWire

ROOT = Path(__file__).parents[2]
PRODUCT = ("kvnet", "backends", "datapath", "controller", "worker", "cli")


# faults


@pytest.mark.kernel
@pytest.mark.anyio
async def test_a_bad_wire_delays_and_loses_and_is_a_good_one_afterwards(tmp_path: Path) -> None:
    async with open_lab(tmp_path, hosts=2) as lab:
        h1, h2 = lab.hosts.values()
        opener = partial(namespaces.open_socket, h1.netns)

        async def reached(seconds: float) -> float | None:
            answer = await ping(opener, h2.port.underlay, timeout_s=seconds, payload=1400)
            return answer.rtt_ms

        wire = BadWire(h2.port, tmp_path)
        await wire.start(loss=0.0, delay_s=0.2, seed=1)
        rtt_ms = await reached(5.0)
        assert rtt_ms is not None
        assert rtt_ms >= 400.0, "late on the way there and on the way back"
        await wire.stop()

        await wire.start(loss=1.0, delay_s=0.0, seed=1)
        assert await reached(0.5) is None
        await wire.stop()
        assert await reached(5.0) is not None


def test_a_shifted_process_sees_another_time_and_the_same_durations(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    program = "import time; print(time.time(), time.time_ns() / 1e9, time.monotonic())"
    clock.set(-3600.0)
    ran = subprocess.run(
        [sys.executable, "-c", program], env=dict(clock.environment), capture_output=True, text=True, check=True
    )
    wall, wall_ns, steady = map(float, ran.stdout.split())
    assert abs(wall - (time.time() - 3600)) < 60
    assert abs(wall_ns - wall) < 1
    assert abs(steady - time.monotonic()) < 60


def test_a_jump_is_seen_by_a_process_that_runs(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    program = "import time\nwhile input(): print(time.time(), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=dict(clock.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for offset_s in (0.0, 86400.0, -86400.0):
            clock.set(offset_s)
            child.stdin.write("?\n")
            child.stdin.flush()
            assert abs(float(child.stdout.readline()) - time.time() - offset_s) < 60
        child.stdin.write("\n")


@pytest.mark.parametrize("package", PRODUCT)
def test_the_product_has_no_wall_clock_but_those_that_the_soak_shifts(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and (node.attr == "CLOCK_REALTIME" or _reads_the_calendar(node))
    ]
    assert found == []


def _reads_the_calendar(node: ast.Attribute) -> bool:
    is_calendar = isinstance(node.value, ast.Name) and node.value.id in ("datetime", "date")
    return is_calendar and node.attr in ("now", "utcnow", "today")


def test_a_full_disk_takes_nothing_more(small_disk: Path) -> None:
    fill(small_disk / "filler")
    with pytest.raises(OSError, match="No space"), (small_disk / "more").open("wb", buffering=0) as file:
        file.write(b"x" * 8192)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path, "1m"):
        yield tmp_path


# eyes


def ping_line(pair: str, at: float, *lost: float) -> str:
    told = {"pair": pair, "at": at, "sent": 100, "answered": 100 - len(lost), "slowest_ms": 1.0}
    return json.dumps({**told, "lost": [[moment, "no answer"] for moment in lost]})


def test_a_lost_packet_is_explained_by_a_bad_wire_of_one_of_its_hosts_at_that_time_only(tmp_path: Path) -> None:
    pairs = {
        "across": Pair("across", "a", "10.1.0.2", frozenset({"h1", "h2"})),
        "elsewhere": Pair("elsewhere", "b", "10.1.0.3", frozenset({"h2", "h3"})),
        "on one host": Pair("on one host", "c", "10.1.0.4", frozenset()),
    }
    log = tmp_path / "pinger.log"
    log.write_text("\n".join(ping_line(name, 30.0, 5.0, 15.0, 25.0) for name in pairs))

    found = judged(log, pairs, [Window("h1", 10.0, 20.0)])

    assert [at for at, _ in found["across"].unexplained] == [5.0, 25.0]
    assert len(found["elsewhere"].unexplained) == len(found["on one host"].unexplained) == 3
    assert found["across"].explained == 1


@pytest.mark.kernel
@pytest.mark.anyio
async def test_one_address_in_two_namespaces_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    places = {name: namespaces.create(name) for name in ("one", "other", "third")}
    try:
        for name, address in (("one", "10.9.0.1"), ("other", "10.9.0.1"), ("third", "10.9.0.3")):
            by_hand(places[name], partial(give_address, address))
        assert addresses_in(places["third"]) == {"10.9.0.3"}
        watch = Watch(lambda: places, told.append)
        await watch.look()
        await watch.look()
    finally:
        for path in places.values():
            namespaces.destroy(path)
    assert told == ["10.9.0.1 is in the kernel of one and of other"]


# the verdict


@pytest.fixture
async def soaked(tmp_path: Path) -> AsyncIterator[Soaked]:
    async with open_soaked(Options("sqlite", 1.0, 1, hosts=1, controllers=1), tmp_path) as site:
        yield site


@pytest.mark.kernel
@pytest.mark.anyio
async def test_what_is_lost_left_behind_or_changed_behind_our_back_is_found(
    soaked: Soaked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "SETTLED_WITHIN_S", 5.0)
    monkeypatch.setattr(judging, "REACH_S", 2.0)
    ledger, violations = Ledger(io.StringIO(), time.monotonic_ns), Violations(lambda text: None)
    with opened_eyes(soaked.hosts) as eyes:
        await eyes["h1"].open(soaked.lab.hosts["h1"].netns)
        user = User(1, soaked, ledger, random.Random(1))
        verdict = Verdict(soaked, ledger, violations, eyes, user)
        await set_up(soaked, ledger)
        await verdict.until_settled()
        before, keys_before = await verdict.facts(), await verdict.owned_keys()
        await verdict.require_what_was_acknowledged()
        assert violations.counts == {}, violations.kept

        changed, lost = list(ledger.endpoints.values())[:2]
        await user_changes(soaked, changed.network.id, changed.id)
        await write_past_everybody(soaked, Delete(keys.endpoint(lost.network.id, lost.id)))
        await write_past_everybody(soaked, Put("addresses/ffffffffffff/10.250.0.9", b"{}"))
        by_hand(soaked.lab.hosts["h1"].netns, make_a_leftover)
        await verdict.require_what_was_acknowledged()
        await verdict.require_as_before("at the end", before, keys_before)

    found = set(violations.counts)
    assert {"lost", "check", "leaked-keys", "missing-keys", "leaked-kernel-objects"} <= found
    about = [v["detail"] for v in violations.kept if v["rule"] == "lost"]
    assert any(lost.id in detail for detail in about)
    assert any(changed.id in detail for detail in about)


@pytest.mark.kernel
@pytest.mark.anyio
async def test_what_came_late_does_not_keep_a_network_from_going(
    soaked: Soaked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that was frozen carries out a request, and nobody waits for it any more."""
    monkeypatch.setattr(judging, "SETTLED_WITHIN_S", 5.0)
    ledger, violations = Ledger(io.StringIO(), time.monotonic_ns), Violations(lambda text: None)
    made = await soaked.lab.client.create_network({"name": "doubtful"})
    late = await soaked.lab.client.create_endpoint(made["id"], {"host": "h1", "name": "late"})
    ledger.networks[made["id"]] = Network(made["id"], "doubtful", "overlay", standing=Standing.DOUBTFUL)
    ledger.may_appear.add(late["id"])
    with opened_eyes(soaked.hosts) as eyes:
        verdict = Verdict(soaked, ledger, violations, eyes, User(1, soaked, ledger, random.Random(1)))
        await verdict.until_settled()

    assert violations.counts == {}, violations.kept
    assert [one async for one in soaked.lab.client.networks()] == []


async def user_changes(site: Soaked, network: str, endpoint: str) -> None:
    """Somebody whom the ledger does not know of."""
    await site.lab.client.update_endpoint(network, endpoint, {"labels": {LABEL: "a stranger's"}})


async def write_past_everybody(site: Soaked, write: Put | Delete) -> None:
    store = await open_store(site.lab.store_url)
    try:
        await store.commit([], [write])
    finally:
        await store.close()


def give_address(address: str, ip: Any) -> None:
    ip.addr("add", index=1, address=address, prefixlen=24)


def make_a_leftover(ip: Any) -> None:
    """As an interface that a worker forgot would be called, but without the mark of what is its own."""
    ip.link("add", ifname="kve0123456789ab", kind="bridge")
