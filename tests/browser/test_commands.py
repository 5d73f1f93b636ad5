"""The command lines that a view shows are run, as they are, and say what the view says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.browser.site import Site

pytestmark = pytest.mark.anyio

USAGE = 2
ANSWER_S = 20.0
PORTS = [{"port": 80, "host_port": 8095}]
ASK_WORKERS = (" doctor ", "/doctor", " connectivity ", "/connectivity")  # which these hosts have not


async def run(line: str, *, is_endless: bool = False) -> tuple[int, str]:
    """In a shell that finds kvnet; one that would go on forever is heard for a moment."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shown = f"timeout -s INT 4 {line}" if is_endless else line
    shell = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        shown,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PATH": path},
    )
    async with asyncio.timeout(ANSWER_S):
        told, _ = await shell.communicate()
    return shell.returncode or 0, told.decode()


async def lines(page: Page, kind: str) -> list[str]:
    await page.locator(f"main > .commands [data-command={kind}]").first.wait_for()
    return await page.locator(f"main > .commands [data-command={kind}]").all_inner_texts()


async def test_the_lines_of_each_view_say_what_it_says(site: Site) -> None:
    network = await site.network("said", subnets=[{"cidr": "10.95.0.0/24"}])
    made = await site.api.endpoint("said", name="speaker", address="10.95.0.7", ports=PORTS)
    expected = {
        "#/": ["memory"],
        "#/networks": ["said", "10.95.0.0/24"],
        "#/networks/said": ["said", "speaker"],
        f"#/networks/said/endpoints/{made['id']}": ["speaker", "10.95.0.7"],
        "#/hosts": ["h0", "h1", "h2"],
        "#/hosts/h1": ["h1", "192.0.2.2"],
        "#/events": ["endpoint.created", "speaker"],
        "#/search?q=10.95.0.7": ["speaker", "said"],
        "#/search?q=10.95.0.0/16": ["10.95.0.0/24", "said"],
        "#/search?q=speaker": ["speaker", "10.95.0.7"],
        "#/search?q=h1%3A8095": ["speaker", "8095"],
    }
    async with site.page("#/") as page:
        for place, words in expected.items():
            await page.evaluate("place => (location.hash = place)", place)
            for kind in ("cli", "curl"):
                told = ""
                for line in await lines(page, kind):
                    is_endless = "--watch" in line or "/v1/events" in line
                    if any(word in line for word in ASK_WORKERS):
                        continue
                    code, answer = await run(line, is_endless=is_endless)
                    assert is_endless or code == 0, f"{line}\n{answer}"
                    if kind == "curl" and not is_endless:
                        json.loads(answer)
                    told += answer
                shown = await page.locator("main").inner_text()
                for word in words:
                    assert word in shown, f"{place} does not show {word}"
                    assert word in told, f"{place}: {kind} does not say {word}: {told[:300]}"
    assert network["id"]


async def test_the_ways_out_are_commands_that_exist(site: Site) -> None:
    await site.network("way", subnets=[{"cidr": "10.96.0.0/29"}])
    await site.endpoints("way", 5)
    async with site.page("#/") as page:
        ways = await page.evaluate(
            """async () => {
                const {wayOut} = await import('./dashboard/lib/ways.js');
                const known = ['host-down', 'peer-not-adjacent', 'forward-blocked', 'host-name-taken',
                    'store-went-back', 'behind', 'starting', 'no-leader', 'stale', 'full', 'never-heard-of'];
                return known.flatMap((reason) => ['h1', ''].map((host) => wayOut(reason, host)));
            }"""
        )
        assert all(way["text"] for way in ways)
        for words in {tuple(way["words"]) for way in ways}:
            command = [word for word in words if word != "h1"]
            line = " ".join(("kvnet", *command, "--help"))
            code, answer = await run(line)
            assert code == 0, f"{line}: {answer}"
        await page.locator("#problems [data-command=way]").first.wait_for()
        for line in await page.locator("#problems [data-command=way]").all_inner_texts():
            code, answer = await run(line)
            assert code != USAGE, f"{line}: {answer}"
