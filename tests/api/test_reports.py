"""What a thousand hosts report of one change is few commits of the store, and each host's own."""

from __future__ import annotations

import asyncio
import base64
import re
from pathlib import Path

import pytest

from tests.api.under_test import Api, running

pytestmark = pytest.mark.anyio
HOSTS = 60


async def _commits(api: Api) -> int:
    """How many the controller has asked its store for, of any outcome."""
    text = (await api.get("/metrics")).text
    counted = re.findall(r'^kvnet_store_request_duration_seconds_count\{op="commit"\} (\d+)', text, re.MULTILINE)
    return sum(map(int, counted))


async def _report(api: Api, key: str, *, known: int = 0, value: bytes = b"{}") -> tuple[int, dict[str, object]]:
    check = {"check": "unchanged", "key": key, "version": known} if known else {"check": "absent", "key": key}
    write = {"write": "put", "key": key, "value": base64.b64encode(value).decode()}
    answer = await api.post("/v1/store/commit", {"checks": [check], "writes": [write]})
    return answer.status_code, answer.json()


async def test_reports_that_come_together_are_committed_together(tmp_path: Path) -> None:
    async with running(f"sqlite://{tmp_path}/kvnet.db") as api:
        await _report(api, "observed/first")
        before = await _commits(api)
        answers = await asyncio.gather(*(_report(api, f"observed/h{number}") for number in range(HOSTS)))

        assert {status for status, _ in answers} == {200}
        assert 1 <= await _commits(api) - before <= HOSTS // 4
        for number, (_, told) in enumerate(answers):
            found = await api.post("/v1/store/get", {"key": f"observed/h{number}"})
            assert found.json()["entry"]["version"] == told["revision"]


async def test_a_report_over_a_newer_one_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    async with running(f"sqlite://{tmp_path}/kvnet.db") as api:
        _, old = await _report(api, "observed/h3")
        await _report(api, "observed/h3", known=int(str(old["revision"])), value=b"[]")
        answers = await asyncio.gather(
            *(
                _report(api, f"observed/h{n}", known=int(str(old["revision"])) if n == 3 else 0, value=b"1")
                for n in range(20)
            )
        )

        assert [status for status, _ in answers] == [409 if n == 3 else 200 for n in range(20)]
