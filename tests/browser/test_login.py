"""Logging in and out at the dashboard: what is asked, what stays in the browser, and how soon it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page

from tests.browser.site import NOTE_VIOLATIONS, TIMEOUT_MS, Seen, Site, shows, site_of

pytestmark = pytest.mark.anyio

SOON_S = 4.0  # half of it on a machine that is quiet
LIFE_S = 9.0  # of a token, and long enough to log in with it
REFUSED = ("401", "ERR_INCOMPLETE_CHUNKED", "ERR_ABORTED")
EVERYWHERE = """() => JSON.stringify([
    document.documentElement.outerHTML, location.href, document.title, document.cookie, {...localStorage},
    {...sessionStorage}, [...document.querySelectorAll('input')].map((one) => one.value), history.state])"""


@pytest.fixture(scope="module")
async def locked(browser: Browser) -> AsyncIterator[Site]:
    """A cluster that asks; the client of the tests is an admin."""
    async with site_of(browser) as site:
        await site.network("secret-plans")
        made = await site.api.post("/v1/tokens", {"name": "root", "role": "admin"})
        site.api.http.headers["authorization"] = f"Bearer {made.json()['token']}"
        yield site


async def token(site: Site, name: str, role: str = "viewer", **more: Any) -> dict[str, Any]:
    made = await site.api.post("/v1/tokens", {"name": name, "role": role, **more})
    assert made.status_code == 201, made.text
    return dict(made.json())


@asynccontextmanager
async def visitor(site: Site, **options: Any) -> AsyncIterator[tuple[BrowserContext, Page]]:
    """A page of somebody who is not logged in; it broke no rule when it is closed."""
    context = await site.browser.new_context(**options)
    context.set_default_timeout(TIMEOUT_MS)
    page, seen = await at_the_door(context, site)
    yield context, page
    assert await page.evaluate("window.violations") == []
    await context.close()
    seen.require_clean()


async def at_the_door(context: BrowserContext, site: Site, place: str = "#/networks") -> tuple[Page, Seen]:
    page = await context.new_page()
    seen = Seen(site.api.url, excused=REFUSED)
    seen.note(page)
    await page.add_init_script(NOTE_VIOLATIONS)
    await page.goto(f"{site.api.url}/{place}")
    return page, seen


async def logs_in(page: Page, text: str) -> None:
    await page.get_by_label("Token").fill(text)
    await page.keyboard.press("Enter")
    await page.locator("#link.live").wait_for()


async def test_a_stranger_sees_a_field_for_a_token_and_nothing_else(locked: Site) -> None:
    async with visitor(locked) as (_, page):
        await shows(page, "h1", "Log in")
        assert await page.evaluate("document.activeElement.id") == "token"
        assert await page.get_by_label("Token").get_attribute("type") == "password"
        assert not await page.locator("nav").is_visible()
        assert "secret-plans" not in await page.content()


async def test_who_logs_in_sees_what_is_there_and_his_name_and_the_token_is_nowhere_in_the_page(locked: Site) -> None:
    text = (await token(locked, "alice"))["token"]
    async with visitor(locked) as (context, page):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await logs_in(page, text)

        await shows(page, "tbody tr", "secret-plans")
        await shows(page, "#who", "alice (viewer)")
        assert page.url.endswith("#/networks"), "where one wanted to go"
        secret = text.rpartition("_")[2]
        assert secret not in await page.evaluate(EVERYWHERE)
        assert not any(secret in url for url in asked)
        (cookie,) = await context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("kvnet_session", True, "Strict")
        assert secret not in cookie["value"]


async def test_a_wrong_token_is_refused_in_words_and_the_field_is_empty_again(locked: Site) -> None:
    async with visitor(locked) as (_, page):
        await page.get_by_label("Token").fill("kvnet_000000000000_" + "x" * 43)
        await page.get_by_role("button", name="Log in").click()

        await shows(page, "#login-told", "not good here")
        assert await page.get_by_label("Token").input_value() == ""
        assert await page.evaluate("document.activeElement.id") == "token"


async def test_logging_out_ends_it_in_every_tab_and_back_shows_nothing(locked: Site) -> None:
    text = (await token(locked, "bob"))["token"]
    async with visitor(locked) as (context, page):
        await logs_in(page, text)
        other, _ = await at_the_door(context, locked)
        await shows(other, "tbody tr", "secret-plans")

        await page.get_by_role("button", name="Log out").click()

        for one in (page, other):
            await shows(one, "h1", "Log in")
            assert "secret-plans" not in await one.content()
        assert await context.cookies() == []
        await page.go_back()
        assert "secret-plans" not in await page.content()


async def test_a_token_that_is_removed_ends_its_logins_within_two_seconds(locked: Site) -> None:
    made = await token(locked, "carol")
    async with visitor(locked) as (_, page):
        await logs_in(page, made["token"])
        await locked.api.delete(f"/v1/tokens/{made['id']}")
        async with asyncio.timeout(SOON_S):
            await shows(page, "h1", "Log in")


async def test_a_token_that_expires_ends_its_logins_within_two_seconds(locked: Site) -> None:
    made = await token(locked, "dave", expires_in_s=LIFE_S)
    expires = asyncio.get_running_loop().time() + LIFE_S
    async with visitor(locked) as (_, page):
        await logs_in(page, made["token"])
        assert await shows(page, "h1", "Log in") < expires + SOON_S


async def test_a_token_whose_secret_is_changed_ends_its_logins(locked: Site) -> None:
    made = await token(locked, "erin")
    async with visitor(locked) as (_, page):
        await logs_in(page, made["token"])
        await locked.api.post(f"/v1/tokens/{made['id']}/rotate", {})
        async with asyncio.timeout(2 * SOON_S):
            await page.evaluate("fetch('v1/networks')")
            await shows(page, "h1", "Log in")


async def test_a_login_sees_no_more_than_its_token(locked: Site) -> None:
    await locked.network("team-a", labels={"team": "a"})
    text = (await token(locked, "frank", scope={"team": "a"}))["token"]
    async with visitor(locked) as (_, page):
        await logs_in(page, text)
        await shows(page, "tbody tr", "team-a")
        assert "secret-plans" not in await page.content()


async def test_it_works_with_the_keyboard_and_on_a_phone(locked: Site) -> None:
    text = (await token(locked, "grace"))["token"]
    async with visitor(locked, viewport={"width": 360, "height": 640}, has_touch=True) as (_, page):
        await page.keyboard.type(text)
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.locator("#link.live").wait_for()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await page.get_by_role("button", name="Log out").tap()
        await shows(page, "h1", "Log in")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_where_nobody_is_asked_nobody_logs_in(browser: Browser) -> None:
    async with site_of(browser) as site, site.page("#/") as page:
        await shows(page, "h1", "Overview")
        assert not await page.locator("#who").is_visible()


async def test_a_page_of_another_site_changes_nothing_with_the_cookie(locked: Site) -> None:
    """Of another site the browser sends no cookie; and where it did, the header is missing."""
    text = (await token(locked, "heidi", role="operator"))["token"]
    async with visitor(locked) as (context, page):
        await logs_in(page, text)
        statuses = await page.evaluate(
            """() => Promise.all(['', '1'].map((csrf) => fetch('v1/networks', {
                method: 'POST', body: JSON.stringify({name: `forged-${csrf}`}),
                headers: {'content-type': 'application/json', ...(csrf ? {'x-kvnet-csrf': csrf} : {})},
            }).then((answer) => answer.status)))"""
        )
        assert statuses == [401, 201]
        (cookie,) = await context.cookies()
        foreign = {"cookie": f"{cookie['name']}={cookie['value']}", "x-kvnet-csrf": "1", "origin": "https://evil.test"}
        admin = locked.api.http.headers.pop("authorization")
        try:
            refused = await locked.api.post("/v1/networks", {"name": "forged"}, **foreign)
            assert refused.status_code == 403
            assert (await locked.api.post("/v1/login", {"token": text}, origin="https://evil.test")).status_code == 403
        finally:
            locked.api.http.headers["authorization"] = admin
