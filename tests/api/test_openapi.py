"""The published description: in step with the code, free of what clients choke on, and served without the internet."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from backends.memory import MemoryStore
from controller.api.docs import FILES, SERVED, describe
from controller.app import create_app
from tests.api.under_test import Api

CHECKED_IN = Path(__file__).parents[2] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return describe(create_app(lambda: pytest.fail("nobody opens a cluster here"), MemoryStore()))


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, told) for path, methods in document["paths"].items() for method, told in methods.items()]


def test_the_checked_in_description_is_in_step(document: dict[str, Any]) -> None:
    assert json.loads(CHECKED_IN.read_text()) == document, "run: python -m controller.api > docs/openapi.json"


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))

    assert referred <= set(document["components"]["schemas"])


def test_what_clients_are_made_of_has_names_of_its_own(document: dict[str, Any]) -> None:
    """Of two classes of one name the modules would become a part of it."""
    assert [name for name in document["components"]["schemas"] if "__" in name] == []


def test_every_operation_has_a_summary_a_description_a_tag_and_its_own_name(document: dict[str, Any]) -> None:
    names = [told["operationId"] for _, _, told in operations(document)]

    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in document["tags"]}
    for path, method, told in operations(document):
        assert told.get("summary"), f"{method} {path}"
        assert told.get("description"), f"{method} {path}"
        assert set(told["tags"]) <= tags, f"{method} {path}"


def test_every_error_is_described_as_a_problem(document: dict[str, Any]) -> None:
    for path, method, told in operations(document):
        for status, response in told["responses"].items():
            if status.startswith(("4", "5")) and path != "/readyz":
                assert list(response["content"]) == ["application/problem+json"], f"{method} {path} {status}"


def test_no_keyword_of_a_later_openapi_is_used(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert "itemSchema" not in json.dumps(document)


def test_the_vendored_files_are_those_that_were_checked() -> None:
    sums = dict(re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", (FILES / "VENDOR.md").read_text()))

    assert set(SERVED) - {"init.js"} <= set(sums)
    for name, wanted in sums.items():
        assert hashlib.sha256((FILES / name).read_bytes()).hexdigest() == wanted, name


@pytest.mark.anyio
async def test_the_documentation_page_refers_to_local_files_only_and_forbids_others(api: Api) -> None:
    page = await api.get("/docs")

    assert page.status_code == 200
    referred = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(referred) == 5
    for address in referred:
        assert address.startswith("/"), address
        assert (await api.get(address)).status_code == 200, address
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.lower()


@pytest.mark.anyio
async def test_no_other_file_can_be_had_through_the_documentation(api: Api) -> None:
    for name in ("VENDOR.md", "..%2f..%2fapp.py", "%2e%2e/app.py"):
        assert (await api.get(f"/docs/{name}")).status_code == 404


@pytest.mark.anyio
async def test_the_served_description_is_the_checked_in_one(api: Api) -> None:
    assert (await api.get("/openapi.json")).json() == json.loads(CHECKED_IN.read_text())
