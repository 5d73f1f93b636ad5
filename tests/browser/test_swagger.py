"""The interactive documentation works as a reader would use it: every operation opens, and what is tried is done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Locator, Page

from tests.browser.site import NOTE_VIOLATIONS, TIMEOUT_MS, Seen, Site, site_of

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def swagger(site: Site, *excused: str) -> AsyncIterator[Page]:
    """/docs, which when it is closed has asked for nothing from elsewhere and complained of nothing."""
    context = await site.browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(TIMEOUT_MS)
    try:
        page = await context.new_page()
        seen = Seen(site.api.url, excused=excused)
        seen.note(page)
        await page.add_init_script(NOTE_VIOLATIONS)
        await page.goto(f"{site.api.url}/docs")
        await page.locator(".opblock").first.wait_for()
        yield page
        assert await page.evaluate("window.violations") == []
        seen.require_clean()
    finally:
        await context.close()


async def opened(page: Page, tag: str, operation: str) -> Locator:
    block = page.locator(f"#operations-{tag}-{operation}")
    await block.locator(".opblock-summary-control").first.click()
    await block.locator(".execute").wait_for()
    return block


async def executed(block: Locator) -> tuple[str, str]:
    """The status and the body that the page shows of a real answer."""
    await block.locator(".execute").click()
    live = block.locator(".live-responses-table")
    await live.wait_for()
    status = await live.locator(".response-col_status").last.inner_text()
    shown = live.locator(".response-col_description .microlight, .response-col_description code")
    body = await shown.first.inner_text() if await shown.count() else ""
    return status.split()[0], body


async def test_a_network_is_made_looked_at_and_removed_with_what_the_page_suggests(site: Site) -> None:
    async with swagger(site) as page:
        made = await executed(await opened(page, "networks", "create_network"))
        looked = await opened(page, "networks", "list_networks")
        listed = await executed(looked)

        assert made[0] == "201", made
        name = made[1].split('"name": "')[1].split('"')[0]
        assert listed[0] == "200"
        assert f'"name": "{name}"' in listed[1]

        removal = await opened(page, "networks", "delete_network")
        await removal.locator("tr[data-param-name=network] input").fill(name)
        assert (await executed(removal))[0] == "204"
    assert (await site.api.get(f"/v1/networks/{name}")).status_code == 404


async def test_a_refusal_is_shown_with_its_reason(site: Site) -> None:
    async with swagger(site, "status of 404") as page:
        block = await opened(page, "networks", "get_network")
        await block.locator("tr[data-param-name=network] input").fill("nobody")
        status, body = await executed(block)

        assert status == "404"
        assert "there is no network 'nobody'" in body


@pytest.fixture(scope="module")
async def locked(browser: Browser) -> AsyncIterator[Site]:
    """A cluster that asks; the client of the tests is an admin."""
    async with site_of(browser) as site:
        made = await site.api.post("/v1/tokens", {"name": "root", "role": "admin"})
        site.api.http.headers["authorization"] = f"Bearer {made.json()['token']}"
        yield site


async def authorized(page: Page, token: str) -> None:
    await page.locator(".auth-wrapper .btn.authorize").click()
    dialog = page.locator(".dialog-ux")
    await dialog.locator("input").first.fill(token)
    await dialog.locator(".auth-btn-wrapper .authorize").first.click()
    await dialog.get_by_role("button", name="Remove authorization").wait_for()
    await dialog.locator(".btn-done").click()
    await dialog.wait_for(state="detached")


async def test_whoever_authorizes_with_a_token_may_try_what_the_token_may(locked: Site) -> None:
    made = await locked.api.post("/v1/tokens", {"name": "reader", "role": "viewer"})
    token = made.json()["token"]
    async with swagger(locked, "status of 401", "status of 403") as page:
        whoami = await opened(page, "tokens", "get_whoami")
        assert (await executed(whoami))[0] == "401", "nobody yet"

        await authorized(page, token)
        status, body = await executed(whoami)
        assert status == "200", body
        assert '"name": "reader"' in body
        status, body = await executed(await opened(page, "networks", "create_network"))
        assert status == "403"
        assert '"code": "forbidden"' in body
        assert token not in page.url
        kept = await page.evaluate("JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])")
        assert token not in kept


async def test_an_admins_token_makes_a_network_from_the_page_and_is_gone_with_it(locked: Site) -> None:
    token = locked.api.http.headers["authorization"].removeprefix("Bearer ")
    async with swagger(locked, "status of 401") as page:
        await authorized(page, token)
        status, body = await executed(await opened(page, "networks", "create_network"))
        assert status == "201", body
        name = body.split('"name": "')[1].split('"')[0]
        item = (await locked.api.get(f"/v1/journal?network={name}")).json()["items"][0]
        assert (item["actor"], item["kind"]) == ("root", "network.created")

        await page.goto(f"{locked.api.url}/docs?again")
        await page.locator(".opblock").first.wait_for()
        assert (await executed(await opened(page, "tokens", "get_whoami")))[0] == "401"


async def test_every_operation_is_there_with_its_summary(site: Site) -> None:
    document = (await site.api.get("/openapi.json")).json()
    operations = {
        (operation["tags"][0], operation["operationId"]): operation["summary"]
        for methods in document["paths"].values()
        for operation in methods.values()
    }
    async with swagger(site) as page:
        shown = await page.locator(".opblock").evaluate_all("blocks => blocks.map(block => block.id)")
        assert sorted(shown) == sorted(f"operations-{tag}-{name}" for tag, name in operations)

        for (tag, name), summary in operations.items():
            block = page.locator(f"#operations-{tag}-{name}")
            assert summary in await block.locator(".opblock-summary-description").inner_text()
