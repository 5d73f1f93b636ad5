"""attach, detach, connect, disconnect and plan: what they ask a worker, and how they show its answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.join import forget
from cli.main import cli
from cli.worker import address_towards
from kvnet.errors import Invalid, WorkerUnreachable
from kvnet.problems import to_problem
from tests.cli.world import Outcome, fake_worker

ATTACHED = {
    "ok": True,
    "result": {
        "endpoint": {"id": "e1", "name": "c1", "address": "10.1.0.2", "address6": None},
        "interface": "eth0",
        "netns": "/run/netns/red",
        "timing_ms": {},
    },
}


def run(path: Path, *arguments: str) -> Outcome:
    done = CliRunner().invoke(cli, ["--socket", str(path), *arguments], prog_name="kvnet")
    return Outcome(done.exit_code, done.stdout, done.stderr)


@pytest.mark.parametrize("arguments", [["attach", "my-net", "--netns", "red"], ["network", "connect", "my-net", "red"]])
def test_attach_asks_for_what_was_given(socket_path: Path, arguments: list[str]) -> None:
    options = ["--name", "c1", "--ip", "10.1.0.2", "--alias", "db", "--alias", "sql", "--label", "a=1", "--wait", "2"]

    with fake_worker(socket_path, ATTACHED) as asked:
        outcome = run(socket_path, *arguments, *options)

    assert asked == [
        {
            "op": "attach",
            "network": "my-net",
            "netns": "red",
            "name": "c1",
            "address": "10.1.0.2",
            "aliases": ["db", "sql"],
            "labels": {"a": "1"},
            "wait": 2.0,
        }
    ]
    assert outcome.code == 0
    assert "Address:    10.1.0.2" in outcome.lines
    assert "Interface:  eth0" in outcome.lines


def test_the_endpoint_is_named_after_the_namespace(socket_path: Path) -> None:
    with fake_worker(socket_path, ATTACHED) as asked:
        outcome = run(socket_path, "attach", "my-net", "--netns", "/run/netns/red", "-q")

    assert asked[0]["name"] == "red"
    assert outcome.lines == ["e1"]


def test_the_callers_own_namespace_is_not_the_workers(socket_path: Path) -> None:
    with fake_worker(socket_path, ATTACHED) as asked:
        run(socket_path, "attach", "my-net", "--netns", "/proc/self/ns/net", "--name", "me")

    assert asked[0]["netns"] == f"/proc/{os.getpid()}/ns/net"


def test_published_ports_are_asked_for_as_they_are_spelt(socket_path: Path) -> None:
    with fake_worker(socket_path, ATTACHED) as asked:
        ports = ["-p", "80:8080/tcp", "-p", "53/udp"]
        run(socket_path, "attach", "my-net", "--netns", "red", *ports, "--gateway-priority", "7")

    assert asked[0]["ports"] == [{"port": 8080, "protocol": "tcp", "host_port": 80}, {"port": 53, "protocol": "udp"}]
    assert asked[0]["gateway_priority"] == 7


def test_a_port_in_another_spelling_is_refused_before_anything_is_asked(socket_path: Path) -> None:
    outcome = run(socket_path, "attach", "my-net", "--netns", "red", "-p", "80:80/sctp")

    assert outcome.code == 2
    assert "sctp" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "asked_for"),
    [
        (["detach", "--netns", "red"], {"netns": "red"}),
        (["detach", "my-net", "--name", "c1"], {"network": "my-net", "name": "c1"}),
        (["detach", "--id", "e1"], {"id": "e1"}),
        (["network", "disconnect", "my-net", "red"], {"network": "my-net", "netns": "red"}),
    ],
)
def test_detach_asks_for_what_was_given(socket_path: Path, arguments: list[str], asked_for: dict[str, Any]) -> None:
    with fake_worker(socket_path, {"ok": True, "result": {"detached": ["e1"], "queued": []}}) as asked:
        outcome = run(socket_path, *arguments)

    assert asked == [{"op": "detach", **asked_for}]
    assert (outcome.code, outcome.out, outcome.err) == (0, "e1\n", "")


def test_what_is_released_later_is_said(socket_path: Path) -> None:
    with fake_worker(socket_path, {"ok": True, "result": {"detached": [], "queued": ["e1"]}}):
        outcome = run(socket_path, "detach", "--netns", "red")

    assert outcome.out == "e1\n"
    assert "released when it does" in outcome.err


def test_detach_of_what_is_not_there_is_told(socket_path: Path) -> None:
    with fake_worker(socket_path, {"ok": True, "result": {"detached": [], "queued": []}}):
        outcome = run(socket_path, "detach", "--netns", "red")

    assert (outcome.code, outcome.out) == (3, "")
    assert "nothing that fits is attached on this host" in outcome.err


def test_detach_of_nothing_in_particular_is_refused(socket_path: Path) -> None:
    assert run(socket_path, "detach", "my-net").code == 2


def test_a_plan_without_changes_says_so(socket_path: Path) -> None:
    with fake_worker(socket_path, {"ok": True, "result": {"operations": [], "conflicts": []}}):
        outcome = run(socket_path, "plan", "--exit-code")

    assert (outcome.code, outcome.out) == (0, "Nothing to change.\n")


def test_a_plan_lists_changes_and_what_is_in_the_way(socket_path: Path) -> None:
    answer = {"ok": True, "result": {"operations": ["create bridge kvb-1"], "conflicts": [{"detail": "VNI 7 is held"}]}}

    with fake_worker(socket_path, answer, answer):
        plain, telling = run(socket_path, "plan"), run(socket_path, "plan", "--exit-code")

    assert plain.lines == ["create bridge kvb-1", "in the way: VNI 7 is held"]
    assert (plain.code, telling.code) == (0, 1)


def test_no_worker_is_unreachable(socket_path: Path) -> None:
    outcome = run(socket_path, "plan")

    assert outcome.code == 5
    assert "Fix: start one with 'kvnet worker'" in outcome.err


def test_the_workers_refusal_is_told_as_it_is(socket_path: Path) -> None:
    refusal = {"ok": False, "error": to_problem(WorkerUnreachable("no", fix="yes"), instance="5")}

    with fake_worker(socket_path, refusal):
        outcome = run(socket_path, "attach", "my-net", "--netns", "red")

    assert (outcome.code, outcome.err) == (5, "Error: no\nFix: yes\nRequest: 5\n")


@pytest.mark.parametrize("url", ["unix:///run/c.sock", "http://127.0.0.1:7480", "http://[::1]:7480"])
def test_the_underlay_does_not_follow_from_a_controller_on_this_host(url: str) -> None:
    with pytest.raises(Invalid, match="does not follow"):
        address_towards(url)


def test_what_is_no_socket_is_not_taken_away_for_one(tmp_path: Path) -> None:
    place = tmp_path / "raw.sock"
    place.write_text("precious")

    outcome = run(tmp_path / "none", "worker", "raw-sockets", "--listen-unix", str(place))

    assert outcome.code != 0
    assert "is not a socket" in outcome.err
    assert place.read_text() == "precious"


def test_only_a_file_with_a_used_token_goes_and_not_what_leads_to_it(tmp_path: Path) -> None:
    """Such as /dev/stdin."""
    file, link, pipe = tmp_path / "token", tmp_path / "stdin", tmp_path / "pipe"
    file.write_text("used")
    link.symlink_to(file)
    os.mkfifo(pipe)

    for path in (link, pipe):
        forget(path)
        assert os.path.lexists(path)
    forget(file)
    assert not file.exists()
    forget(file)
