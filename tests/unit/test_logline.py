"""Lines of the log: one form for people, one for programs, and nothing secret in either."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.logs import Form
from kvnet.logline import COVERED, Format, format_for, line
from kvnet.request import asked_by
from worker.log import Log

AT = 1_800_000_000.123
facts = st.dictionaries(
    st.from_regex(r"[a-z_]{1,10}", fullmatch=True),
    st.one_of(st.text(), st.integers(), st.booleans(), st.lists(st.text())),
)


@given(st.text(min_size=1), facts)
def test_a_line_is_one_line_whatever_is_in_it(event: str, known: dict[str, object]) -> None:
    for form in Format:
        assert len(line(form, AT, "info", event, known).splitlines()) == 1


@given(facts)
def test_json_has_time_level_event_and_every_fact(known: dict[str, object]) -> None:
    found = json.loads(line(Format.JSON, AT, "warning", "it-happened", known))

    assert (found["ts"], found["level"]) == ("2027-01-15T08:00:00.123Z", "warning")
    assert {"ts", "level", "event", *known} == found.keys()


def test_people_read_facts_as_words_and_lists_without_brackets() -> None:
    text = line(
        Format.HUMAN, AT, "info", "applied", {"network": "my-net", "request_ids": ["a", "b"], "detail": "two words"}
    )

    assert text == '2027-01-15T08:00:00.123Z info applied network=my-net request_ids=a,b detail="two words"'


@pytest.mark.parametrize(
    "told",
    [
        {"store": "etcd://root:hunter2@10.0.0.5:2379/kvnet"},
        {"detail": "cannot reach consuls://user:hunter2@c:8500/x?token=hunter2: refused"},
        {"token": "hunter2"},
        {"headers": {"Authorization": "hunter2", "accept": "x"}},
        {"detail": "Authorization: Bearer hunter2hunter2"},
        {"url": "http://c:7480/?api_key=hunter2&x=1"},
        {"urls": ["zk://kv:hunter2@z:2181/k"]},
    ],
)
def test_secrets_are_covered_wherever_they_stand(told: dict[str, object]) -> None:
    for form in Format:
        text = line(form, AT, "error", "failed", told)
        assert "hunter2" not in text
        assert COVERED in text


def test_ordinary_words_stay() -> None:
    text = line(
        Format.HUMAN, AT, "info", "x", {"detail": "http://10.0.0.5:7480 token of a parser", "network": "password-net"}
    )
    assert "http://10.0.0.5:7480 token of a parser" in text
    assert "network=password-net" in text


def test_auto_is_for_people_on_a_terminal_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert format_for("auto", Terminal()) is Format.HUMAN
    assert format_for("auto", io.StringIO()) is Format.JSON
    assert format_for("json", Terminal()) is Format.JSON


def test_a_worker_tells_the_request_that_it_works_for_and_what_every_line_has() -> None:
    stream = io.StringIO()
    log = Log(stream, now=lambda: AT, form=Format.JSON, level="info", always={"component": "worker", "host": "h1"})
    with asked_by("r1"):
        log.info("attached", endpoint="e1")
    log.debug("operation", operation="x")

    [told] = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert told["request_id"] == "r1"
    assert (told["component"], told["host"], told["endpoint"]) == ("worker", "h1", "e1")


def test_a_log_that_nobody_can_write_is_no_trouble() -> None:
    stream = io.StringIO()
    log = Log(stream)
    stream.close()
    log.error("x")


def test_what_libraries_log_has_the_same_form() -> None:
    form = Form(Format.JSON, "controller")
    logger = logging.getLogger("some.library")
    record = logger.makeRecord("some.library", logging.WARNING, "f", 1, "went %s", ("wrong",), None)
    own = logger.makeRecord("kvnet.api", logging.INFO, "f", 1, "request", (), None, extra={"facts": {"status": 201}})

    assert (
        json.loads(form.format(record)).items()
        >= {"level": "warning", "event": "some.library", "detail": "went wrong", "component": "controller"}.items()
    )
    assert json.loads(form.format(own)).items() >= {"event": "request", "status": 201, "level": "info"}.items()


def test_a_stack_is_one_line_too() -> None:
    form = Form(Format.HUMAN, "controller")
    try:
        raise ZeroDivisionError("a reason")
    except ZeroDivisionError:
        record = logging.getLogger("kvnet.x").makeRecord(
            "kvnet.x", logging.ERROR, "f", 1, "failed", (), __import__("sys").exc_info(), extra={"facts": {}}
        )
    text = form.format(record)
    assert len(text.splitlines()) == 1
    assert re.search(r'traceback=".*ZeroDivisionError: a reason"', text)
