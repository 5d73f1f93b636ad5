"""A controller with hosts that seem alive, and a page of it in a real Chromium that notes what it should not do."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from backends.open import open_store
from backends.store import Put, Store
from kvnet import codec, keys
from kvnet.model import Alive, Condition, Inventory, NetworkObserved, Observed
from tests.api.under_test import Api, running

CHECKOUT = Path(__file__).parents[2]
UNPACKED = CHECKOUT / ".tools" / "chromium" / "chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SESSION_S = 600.0
TIMEOUT_MS = 10_000
NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


def chromium() -> str:
    """The one that tests/browser/install found or made."""
    for path in (os.environ.get("KVNET_CHROMIUM"), shutil.which("chromium"), shutil.which("google-chrome")):
        if path:
            return path
    if not UNPACKED.exists():
        pytest.fail("there is no Chromium: run tests/browser/install (or make servers)")
    return str(UNPACKED)


@asynccontextmanager
async def started() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield browser
        await browser.close()


@dataclass
class Seen:
    """What a page did: all it asked for, and what no page of ours may do."""

    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    excused: tuple[str, ...] = ()  # parts of complaints that a test provokes

    def note(self, page: Page) -> None:
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def _console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def require_clean(self) -> None:
        left = [one for one in self.complaints if not any(part in one for part in self.excused)]
        assert left == []
        assert [url for url in self.requests if not url.startswith(self.url + "/")] == []


@dataclass
class Site:
    api: Api
    browser: Browser
    store: Store

    @asynccontextmanager
    async def page(self, place: str = "#/", *, excused: Sequence[str] = (), **options: Any) -> AsyncIterator[Page]:
        """A page that is live; when it is closed, it has done nothing wrong."""
        context = await self.browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(TIMEOUT_MS)
        try:
            page, seen = await self.another(context, place)
            seen.excused = tuple(excused)
            yield page
            assert await page.evaluate("window.violations") == []
            seen.require_clean()
        finally:
            await context.close()

    async def another(self, context: BrowserContext, place: str = "#/") -> tuple[Page, Seen]:
        page = await context.new_page()
        seen = Seen(self.api.url)
        seen.note(page)
        await page.add_init_script(NOTE_VIOLATIONS)
        await page.goto(f"{self.api.url}/{place}")
        await page.locator("#link.live").wait_for()
        await page.locator("main h1").first.wait_for()
        return page, seen

    async def network(self, name: str, **more: Any) -> dict[str, Any]:
        answer = await self.api.post("/v1/networks", {"name": name, **more})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def endpoints(self, network: str, count: int, hosts: Sequence[str] = ("h0", "h1", "h2")) -> None:
        wanted = [{"host": hosts[i % len(hosts)], "name": f"web-{i}"} for i in range(count)]
        for first in range(0, count, 500):
            answer = await self.api.post(f"/v1/networks/{network}/endpoints", {"items": wanted[first : first + 500]})
            assert all(item["status"] == 201 for item in answer.json()["items"]), answer.text[:500]

    async def lives(self, *hosts: str) -> None:
        """What their workers would do."""
        session = await self.store.session(SESSION_S)
        for host in hosts:
            alive = codec.encode(Alive(host, "a-run-of-it", time.time()))
            inventory = codec.encode(Inventory(host, (), "6.1.0", "0.1.0"))
            await self.store.commit([], [Put(keys.inventory(host), inventory)])
            await self.store.commit([], [Put(keys.alive(host), alive, session=session.id)])

    async def reports(self, host: str, networks: Sequence[str], *problems: tuple[str, str]) -> None:
        """The host has applied everything of these networks, and has problems in the first."""
        told = tuple(Condition(code, detail, time.time() - 90) for code, detail in problems)
        seen = {}
        for network in networks:
            wanted = (await self.api.get(f"/v1/networks/{network}/convergence")).json()["version"]
            carried = (await self.api.get(f"/v1/endpoints?network={network}&host={host}&limit=500")).json()["items"]
            attached = tuple(one["id"] for one in carried)
            seen[network] = NetworkObserved(wanted, () if seen else told, time.time(), attached=attached)
        await self.store.commit([], [Put(keys.observed(host), codec.encode(Observed(host, time.time(), seen)))])


@asynccontextmanager
async def site_of(browser: Browser, store: str = "memory://", **settings: Any) -> AsyncIterator[Site]:
    async with running(store, **settings) as api, await open_store(api.url) as through:
        yield Site(api, browser, through)


async def milliseconds(page: Page, action: str) -> float:
    """How long `action` keeps the page busy, until its next frame was painted."""
    took: float = await page.evaluate(
        f"""async () => {{
            const begin = performance.now();
            {action}
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            return performance.now() - begin;
        }}"""
    )
    return took


async def shows(page: Page, selector: str, text: str) -> float:
    """Wait until an element that is shown has the text; the moment it had."""
    await page.locator(selector).filter(has_text=text, visible=True).first.wait_for()
    return asyncio.get_running_loop().time()


async def holds(page: Page, expression: str) -> None:
    """Wait until the page says so. Playwright's own wait evaluates inside it, and its policy forbids that."""
    async with asyncio.timeout(TIMEOUT_MS / 1000):
        while not await page.evaluate(expression):  # noqa: ASYNC110 - a page tells nobody
            await asyncio.sleep(0.02)
