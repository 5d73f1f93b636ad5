"""The batched socket: refusals find their message, lost answers are admitted, the next request is not confused."""

from __future__ import annotations

import errno
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from datapath.objects import Bridge
from lab import namespaces
from worker.kernel import messages as m
from worker.kernel.dump import device
from worker.kernel.netlink import BATCH_MESSAGES, Netlink, open_socket

pytestmark = pytest.mark.kernel

NOBODY = 0x7FFFFFFF
LOOPBACK = 1


@pytest.fixture
def rtnetlink(netns: Path) -> Iterator[Netlink]:
    with closing(namespaces.call(netns, Netlink)) as made:
        yield made


def test_a_refusal_names_its_message_and_the_rest_is_done(rtnetlink: Netlink) -> None:
    up, broken = m.set_link(LOOPBACK, mtu=1500), m.delete_link(NOBODY)

    refusals = rtnetlink.request([up, broken, up, broken, m.set_link(LOOPBACK, mtu=1400)])

    assert [(refusal.place, refusal.errno) for refusal in refusals] == [(1, errno.ENODEV), (3, errno.ENODEV)]
    body = rtnetlink.get(m.get_link("lo"))
    assert body is not None
    assert m.U32.unpack(device(body).fields[m.IFLA_MTU])[0] == 1400


def test_the_kernels_own_words_come_along(rtnetlink: Netlink) -> None:
    refusal = rtnetlink.one(m.neighbour(LOOPBACK, bytes([10, 0, 0, 1]), b"\x02"))

    assert refusal is not None
    assert refusal.errno == errno.EINVAL
    assert refusal.text


def test_many_more_messages_than_fit_into_one_send_are_all_answered(rtnetlink: Netlink) -> None:
    count = 3 * BATCH_MESSAGES + 7

    refusals = rtnetlink.request([m.delete_link(NOBODY)] * count)

    assert [refusal.place for refusal in refusals] == list(range(count))


def test_lost_answers_are_admitted_and_the_socket_goes_on(netns: Path) -> None:
    with closing(namespaces.call(netns, lambda: Netlink(small=True))) as rtnetlink:
        made: socket.socket = rtnetlink._socket
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)

        refusals = rtnetlink.request([m.delete_link(NOBODY)] * 500)

        assert sorted(refusal.place for refusal in refusals) == list(range(500))
        assert errno.ENOBUFS in {refusal.errno for refusal in refusals}
        assert rtnetlink.one(m.set_link(LOOPBACK, up=True)) is None
        body = rtnetlink.get(m.get_link("lo"))
        assert body is not None


class Full:
    """A socket whose sends find no room for a while."""

    def __init__(self, made: socket.socket, times: int) -> None:
        self._made = made
        self.left = times

    def send(self, data: bytes) -> int:
        if self.left:
            self.left -= 1
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return self._made.send(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._made, name)


def test_a_send_without_room_is_repeated_but_not_for_ever(rtnetlink: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Full(rtnetlink._socket, times=3)
    monkeypatch.setattr(rtnetlink, "_socket", full)
    assert rtnetlink.one(m.set_link(LOOPBACK, up=True)) is None
    assert full.left == 0

    full.left = 1000
    with pytest.raises(OSError, match="nothing of this one was done"):
        rtnetlink.one(m.set_link(LOOPBACK, up=True))

    full.left = 0
    assert rtnetlink.get(m.get_link("lo")) is not None


def test_a_dump_is_one_consistent_pass_while_others_change_the_table(rtnetlink: Netlink, netns: Path) -> None:
    made = [Bridge(f"kvb{i:012x}", bytes([2, 0, 0, 0, 1, i]), 1450, False) for i in range(100)]
    assert rtnetlink.request([m.create_bridge(link) for link in made]) == []
    stop = threading.Event()

    def disturb() -> None:
        with closing(namespaces.call(netns, Netlink)) as other:
            flapping = Bridge("flap", bytes.fromhex("020000000001"), 1450, False)
            while not stop.is_set():
                other.one(m.create_bridge(flapping))
                body = other.get(m.get_link("flap"))
                assert body is not None
                other.one(m.delete_link(device(body).index))

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(30):
            names = [device(body).name for body in rtnetlink.dump(m.dump_links())]
            assert len(names) == len(set(names))
            assert {link.name for link in made} <= set(names)
    finally:
        stop.set()
        thread.join()


def test_a_socket_stays_in_the_namespace_it_was_opened_in(netns: Path) -> None:
    here = Path("/proc/thread-self/ns/net").readlink()
    descriptor = netns.open("rb")
    with descriptor, closing(open_socket(0, descriptor.fileno())):
        assert Path("/proc/thread-self/ns/net").readlink() == here


def test_nothing_of_this_forks(netns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("os.fork", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)

    path = namespaces.create("quick")
    namespaces.call(path, lambda: Netlink(small=True).close())
    namespaces.destroy(path)
