"""How a test of who reaches whom is shown: a matrix, then what fails and what to do."""

from __future__ import annotations

from typing import Any

from cli.connectivity import cell, lines, merged


def link(source: str, target: str, status: str = "ok", **more: Any) -> dict[str, Any]:
    return {
        "from": source,
        "to": target,
        "status": status,
        "code": "",
        "detail": more.get("detail", ""),
        "fix": more.get("fix", ""),
        "rtt_ms": {"min": 0.2, "avg": 0.3, "max": 0.4},
        "echo": {"sent": 5, "answered": 5},
        "tunnel": {"sent": 20, "left": 20, "arrived": 20, "through": more.get("through", 20)},
        "mtu": {"needed": 1500, "passes": more.get("passes"), "told_by": None},
    }


def pair(status: str = "ok", detail: str = "", fix: str = "") -> dict[str, Any]:
    return {
        "network": {"id": "0a", "name": "n1"},
        "from": {"id": "a", "name": "web", "host": "h1", "address": "10.1.0.2"},
        "to": {"id": "b", "name": "db", "host": "h2", "address": "10.1.0.3"},
        "family": 4,
        "status": status,
        "code": "",
        "detail": detail,
        "fix": fix,
        "rtt_ms": None,
        "echo": {"sent": 3, "answered": 0},
        "full": {"size": 1450, "sent": 2, "answered": 0},
    }


def answer(links: list[dict[str, Any]], pairs: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    failures = sum(one["status"] != "ok" for one in (*links, *pairs))
    return {
        "ok": not failures,
        "failures": failures,
        "hosts": [{"name": name} for name in ("h1", "h2")],
        "links": links,
        "endpoints": pairs,
        "not_tried": more.get("not_tried", []),
        "took_s": 0.1,
    }


def test_each_cell_says_the_one_thing_that_matters() -> None:
    assert cell(link("h1", "h2")) == "ok"
    assert cell(link("h1", "h2", "mtu", passes=1412)) == "mtu 1412"
    assert cell(link("h1", "h2", "mtu")) == "mtu"
    assert cell(link("h1", "h2", "loss", through=18)) == "loss 10%"
    assert cell(link("h1", "h2", "blocked")) == "blocked"
    assert cell({**link("h1", "h2", "no-answer"), "mtu": None, "tunnel": None}) == "no answer"


def test_what_fails_is_told_below_the_matrix_with_what_to_do() -> None:
    report = answer(
        [link("h1", "h2", "blocked", detail="a firewall", fix="open it"), link("h2", "h1")],
        [pair("blocked", "lost", "kvnet trace n1/web n1/db")],
    )

    shown = list(lines(report))

    assert shown[:3] == ["FROM/TO   h1   h2", "h1        -    blocked", "h2        ok   -"]
    assert shown[4] == "1 of 2 ways between hosts ok (0.2 ms to 0.4 ms); 0 of 1 pairs of endpoints ok"
    assert shown[6:9] == ["h1 -> h2: blocked", "  a firewall", "  fix: open it"]
    assert shown[10:] == ["n1: web on h1 -> db on h2: blocked", "  lost", "  fix: kvnet trace n1/web n1/db"]


def test_what_is_fine_and_worth_a_word_and_what_was_not_tried_come_last_and_once() -> None:
    report = answer(
        [link("h1", "h2", detail="no tunnel there"), link("h2", "h1", detail="no tunnel there")],
        [],
        not_tried=[{"what": "endpoints without an interface", "count": 2}],
    )

    assert list(lines(report))[-2:] == ["note: no tunnel there", "not tried: 2 endpoints without an interface"]


def test_the_parts_of_a_test_are_put_together() -> None:
    hosts = answer([link("h1", "h2", "blocked")], [])
    some = answer([], [pair()], not_tried=[{"what": "x", "count": 1}])
    more = answer([], [pair("blocked")], not_tried=[{"what": "x", "count": 2}])

    whole = merged([hosts, some, more])

    assert (whole["ok"], whole["failures"], len(whole["endpoints"])) == (False, 2, 2)
    assert whole["not_tried"] == [{"what": "x", "count": 3}]


def test_names_cannot_speak_to_the_terminal() -> None:
    evil = link("h1", "h2", "blocked", detail="\x1b[31mred", fix="\x07")

    assert not any("\x1b" in line or "\x07" in line for line in lines(answer([evil], [])))


def test_many_failures_are_cut_and_the_rest_is_counted() -> None:
    shown = list(lines(answer([], [pair("blocked")] * 50)))

    assert shown[-1] == "and 10 more: -o json has them all"
