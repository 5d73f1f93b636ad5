"""What is said of hosts that could not be examined."""

from __future__ import annotations

import pytest

from cli.doctor import _unexamined
from kvnet.errors import HostBusy, HostSilent, KvnetError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (HostSilent("host h1 does not answer", fix="look there"), "fail"),
        (HostBusy("host h1 is answering 2 questions of the kind 'doctor' already", fix="repeat it"), "unknown"),
    ],
)
def test_a_host_that_is_silent_has_failed_and_a_busy_one_is_not_known(error: KvnetError, status: str) -> None:
    report = _unexamined("h1", error)

    assert [check["status"] for check in report["checks"]] == [status]
    assert {name: count for name, count in report["counts"].items() if count} == {status: 1}
    assert report["checks"][0]["found"] == error.detail
