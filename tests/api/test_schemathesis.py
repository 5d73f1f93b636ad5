"""An examiner that knows nothing but the description asks the running API everything that it allows, and much that not.

It judges every answer: documented status, fitting schema, no server error, invalid data refused, methods and headers as
described. What it may refuse although it fits the schema is in `schemathesis.toml`, which users of it get as well.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.api.examples import CALLS, authenticated
from tests.api.under_test import Api, running

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CHECKOUT = Path(__file__).parents[2]
EXAMINES_S = 480.0


async def examined(api: Api, seed: int, *arguments: str) -> tuple[int, str]:
    """The examiner's exit code and report."""
    command = (
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CHECKOUT / "schemathesis.toml"), "run"),
        *(f"{api.url}/openapi.json", "--no-color", "--seed", str(seed), "--request-timeout", "10", *arguments),
    )
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "160"},
    )
    try:
        async with asyncio.timeout(EXAMINES_S):
            report, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, report.decode()


async def seeded(api: Api) -> None:
    """What the description's examples speak of is there, so that the examiner gets past "not found"."""
    for call in CALLS:
        if "{app}" not in str(call.body):
            answer = await api.http.request(call.method, call.path, json=call.body)
            assert answer.status_code in (200, 201), answer.text


@pytest.mark.parametrize("seed", [6, 2026])
async def test_no_answer_of_the_api_contradicts_its_description(tmp_path: Path, seed: int) -> None:
    async with running(f"sqlite://{tmp_path}/store.db") as api:
        token = await authenticated(api)
        await seeded(api)

        code, report = await examined(api, seed, "--max-examples", "12", "--header", f"Authorization: Bearer {token}")

        assert code == 0, report
        tested = next(line for line in report.splitlines() if "Tested:" in line)
        assert int(tested.split()[-1]) > 40, report
        assert (await api.get("/livez")).status_code == 200
        assert (await api.get("/v1/ipam/check")).json()["findings"] == []


ROLES: dict[str, dict[str, Any]] = {
    "operator": {"role": "operator"},
    "operator of a team": {"role": "operator", "scope": {"team": "a"}, "limits": {"networks": 5, "endpoints": 20}},
    "viewer": {"role": "viewer"},
    "host": {"role": "host", "host": "h1"},
    "host with Docker": {"role": "host", "host": "h1", "grants": ["docker"]},
}


@pytest.mark.parametrize("who", ROLES)
async def test_no_answer_to_those_who_may_less_contradicts_the_description_either(tmp_path: Path, who: str) -> None:
    async with running(f"sqlite://{tmp_path}/store.db") as api:
        await authenticated(api)
        await seeded(api)
        token = (await api.post("/v1/tokens", {"name": "examiner", **ROLES[who]})).json()["token"]
        before = (await api.get("/v1/status")).json()["revision"]

        code, report = await examined(api, 7, "--max-examples", "3", "--header", f"Authorization: Bearer {token}")

        assert code == 0, report
        assert (await api.get("/v1/ipam/check")).json()["findings"] == []
        tokens = (await api.get("/v1/tokens")).json()["items"]
        assert {one["name"] for one in tokens} >= {"examiner"}
        if who == "viewer":
            journal = (await api.get("/v1/journal")).json()["items"]
            assert all(one["revision"] <= before for one in journal)


async def test_the_examiner_would_find_an_answer_that_is_not_described(tmp_path: Path) -> None:
    """It is asked to hold every answer against a description in which no creation may be answered 201."""
    async with running(f"sqlite://{tmp_path}/store.db") as api:
        document = (await api.get("/openapi.json")).json()
        del document["paths"]["/v1/pools"]["post"]["responses"]["201"]
        described = tmp_path / "openapi.json"
        described.write_text(json.dumps(document))

        code, report = await examined_from(described, api)

        assert code == 1, report
        assert "Undocumented status code" in report


async def examined_from(description: Path, api: Api) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", str(description), "--url", api.url, "--no-color"),
        *("--include-path", "/v1/pools", "--include-method", "POST", "--max-examples", "5", "--phases", "examples"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(EXAMINES_S):
        report, _ = await process.communicate()
    return process.returncode or 0, report.decode()
