"""The pure modules of the dashboard, asked in the browser and held against Python."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.browser.site import Site

pytestmark = pytest.mark.anyio


def many(strategy: st.SearchStrategy[Any]) -> list[Any]:
    """Examples found by hypothesis, to be asked in one go."""
    found: list[Any] = []

    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


async def asked(site: Site, module: str, call: str, values: list[Any]) -> list[Any]:
    async with site.page("#/") as page:
        answers: list[Any] = await page.evaluate(
            f"""async (values) => {{
                const it = await import('./dashboard/lib/{module}.js');
                return values.map({call});
            }}""",
            values,
        )
    return answers


async def test_addresses_are_read_and_written_as_python_does(site: Site) -> None:
    addresses = [str(one) for one in many(st.ip_addresses())]
    exploded = [ipaddress.ip_address(one).exploded for one in addresses]
    call = (
        "(text) => { const one = it.parseAddress(text); return [String(one.value), it.textOf(one.family, one.value)]; }"
    )

    expected = [[str(int(ipaddress.ip_address(one))), one] for one in addresses]
    assert await asked(site, "addresses", call, exploded) == expected


async def test_what_is_no_address_is_none(site: Site) -> None:
    texts = [
        *(
            "",
            "1",
            "1.2.3",
            "1.2.3.256",
            "1.2.3.4.5",
            ":",
            ":::",
            "1::2::3",
            "g::",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
        ),
        *("fe80::1%eth0", "10.0.0.0/8", "::ffff:1.2.3.256", "12345::", " 1.2.3.4", "<img>"),
    ]

    assert await asked(site, "addresses", "(text) => it.parseAddress(text)", texts) == [None] * len(texts)


async def test_blocks_begin_where_python_says(site: Site) -> None:
    pairs = many(st.ip_addresses().flatmap(lambda one: st.tuples(st.just(one), st.integers(0, one.max_prefixlen))))
    texts = [f"{address}/{length}" for address, length in pairs]

    expected = [str(ipaddress.ip_network(text, strict=False)) for text in texts]
    assert await asked(site, "addresses", "(text) => it.blockText(it.parseBlock(text))", texts) == expected
    assert (
        await asked(site, "addresses", "(text) => it.parseBlock(text)", ["10.0.0.0/33", "::/129", "10.0.0.0", "x/8"])
        == [None] * 4
    )


async def test_what_differs_is_told_field_by_field(site: Site) -> None:
    pairs = [
        [{"a": 1, "b": {"c": [1], "d": 2}}, {"a": 1, "b": {"c": [2], "d": 2}, "e": None}],
        [None, {"name": "new"}],
        [{"name": "old"}, None],
        [{"a": {"b": 1}}, {"a": 2}],
    ]
    found = await asked(
        site, "diff", "([before, after]) => it.differences(before, after).map((one) => one.path)", pairs
    )

    assert found == [["b.c", "e"], ["name"], ["name"], ["a"]]


async def test_sizes_and_ages_are_written_as_people_read_them(site: Site) -> None:
    sizes = [0, 253, 4093, 16384, 2**48 - 2, 2**64 - 2, 2**64]
    ages = [0, 59.9, 60, 3599, 3600, 5400, 86_399, 86_400, 864_000, -5]

    assert await asked(site, "format", "(n) => it.grouped(BigInt(n))", [str(n) for n in sizes]) == [
        *("0", "253", "4,093", "16,384", "2^48", "2^64", "2^64")
    ]
    assert await asked(site, "format", "it.span", ages) == [
        *("0s", "59s", "1m", "59m", "1h0m", "1h30m", "23h", "1d", "10d", "0s")
    ]
