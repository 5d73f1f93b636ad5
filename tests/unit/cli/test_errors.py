"""Failures on the command line: what is said, where, and with which exit code."""

from __future__ import annotations

import json

import pytest

from cli.failures import CONFLICT, FAILURE, NOT_FOUND, UNREACHABLE, USAGE, exit_code, lines, report
from cli.session import Session
from kvnet import errors
from kvnet.errors import FieldError, Invalid, KvnetError
from kvnet.problems import from_problem, to_problem


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound, NOT_FOUND),
        (errors.NamespaceNotFound, NOT_FOUND),
        (errors.NameTaken, CONFLICT),
        (errors.PreconditionFailed, CONFLICT),
        (errors.TooMuchContention, CONFLICT),
        (errors.Invalid, USAGE),
        (errors.NotSupported, USAGE),
        (errors.ControllerUnreachable, UNREACHABLE),
        (errors.WorkerUnreachable, UNREACHABLE),
        (errors.StoreUnavailable, UNREACHABLE),
        (errors.MissingCapability, FAILURE),
        (errors.KernelRefused, FAILURE),
        (errors.Gone, FAILURE),
    ],
)
def test_the_kind_of_failure_decides_the_exit_code(error: type[KvnetError], code: int) -> None:
    assert exit_code(error("it went wrong")) == code


def test_an_error_says_what_where_and_what_now() -> None:
    error = Invalid(
        "the request is not valid",
        fix="look at it again",
        errors=[FieldError("/mtu", "17 is not an MTU"), FieldError("/name", "the request is not valid")],
    )
    error.request_id = "0123"

    assert list(lines(error)) == [
        "Error: the request is not valid",
        "  /mtu: 17 is not an MTU",
        "  at /name",
        "Fix: look at it again",
        "Request: 0123",
    ]


def test_what_others_wrote_cannot_reach_the_terminal() -> None:
    error = Invalid.field("/na\x1bme", "\x1b]0;owned\x07", "run \x9b2J")

    assert all(line.isprintable() for line in lines(error))


def as_json() -> Session:
    session = Session()
    session.output = "json"
    return session


def test_with_json_output_the_problem_itself_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code = report(errors.NameTaken("taken", fix="choose another", context={"network": "ab"}), as_json())

    told = capsys.readouterr()
    problem = json.loads(told.err)
    assert (code, told.out) == (CONFLICT, "")
    assert (problem["code"], problem["network"], problem["fix"]) == ("name-taken", "ab", "choose another")


def test_a_problem_comes_back_as_the_error_it_was() -> None:
    error = errors.NetworkInUse(
        "c1 is on it", fix="detach it", errors=[FieldError("/x", "y")], context={"endpoints": ["c1"]}
    )

    back = from_problem(to_problem(error, instance="77"))

    assert type(back) is errors.NetworkInUse
    assert (back.detail, back.fix, back.errors, back.context) == (error.detail, error.fix, error.errors, error.context)
    assert back.request_id == "77"


def test_a_code_of_a_newer_version_is_kept() -> None:
    error = from_problem({"code": "too-spooky", "status": 409, "title": "Boo", "detail": "a ghost", "seen": 3})

    assert (error.code, error.status, error.title, exit_code(error)) == ("too-spooky", 409, "Boo", CONFLICT)
    assert to_problem(error)["code"] == "too-spooky"
    assert error.context == {"seen": 3}


@pytest.mark.parametrize("problem", [{}, {"errors": "no list"}, {"status": "x", "errors": [1, {}]}, {"detail": None}])
def test_a_broken_problem_is_still_an_error(problem: dict[str, object]) -> None:
    assert exit_code(from_problem(problem, status=503)) == UNREACHABLE
