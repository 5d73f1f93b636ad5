"""The page, its plots and the recorded figures say the same, and every figure has its place."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench import page, plots, record
from bench.figures import Figure
from bench.fit import curve
from bench.run import PARTS

MACHINE = {
    "cores": 2,
    "cpu": "a processor",
    "memory_mb": 24_000,
    "kernel": "6.1",
    "python": "3.11.7",
    "commit": "abc1234",
    "date": "2026-01-02 03:04",
    "load_before": 0.1,
    "took_s": 7,
}


def test_the_page_shows_what_is_recorded() -> None:
    text = page.PAGE.read_text()

    assert page.rendered(text, record.read()) == text, "run: .venv/bin/python -m bench.render"


def test_the_plots_show_what_is_recorded() -> None:
    made = dict(page.images(record.read()))

    assert {path.name: path.read_text() for path in page.IMAGES.glob("*.svg")} == made


def test_every_plot_that_the_page_shows_is_one_that_a_part_gives() -> None:
    shown = set(re.findall(r"images/performance/(\S+)\.svg", page.PAGE.read_text()))
    parts = {name: record.Part(name, MACHINE, _everything(name)) for name in plots.PLOTS}

    measured = {name.removesuffix(".svg") for name, _ in page.images(record.read())}
    assert measured <= shown <= {name.removesuffix(".svg") for name, _ in page.images(parts)}


def test_every_block_of_the_page_is_known_and_of_a_part_that_is_measured() -> None:
    marks = re.findall(r"<!-- bench: (\S+) -->", page.PAGE.read_text())

    assert set(marks) == set(page.BLOCKS)
    assert {block.part for block in page.BLOCKS.values()} == {part.name for part in PARTS if part.is_published}


def test_a_part_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.put("limits", MACHINE, [Figure("netlink_raw", 1.0, "1/s")], path)
    record.put("creation", MACHINE, [Figure("single_per_s", 2600.0, "1/s", at_least=2500)], path)
    record.put("limits", MACHINE, [Figure("netlink_raw", 2.0, "1/s")], path)

    found = record.read(path)

    assert found["limits"].value("netlink_raw") == 2.0
    assert found["creation"].figures["single_per_s"]["ok"]
    assert [path] == list(tmp_path.iterdir())


def test_what_is_not_met_and_what_was_not_measured_show() -> None:
    met = Figure("single_per_s", 2600.4, "1/s", at_least=2500).plain()
    missed = Figure("bulk_per_s", 9000.0, "1/s", at_least=10_000).plain()
    part = record.Part("creation", MACHINE, {"single_per_s": met, "bulk_per_s": missed})

    lines = page.table(page.BLOCKS["creation"], part).splitlines()

    assert "| one a request, endpoints/s | 2,600 | >= 2500 |  |" in lines
    assert "| in lists of 100, endpoints/s | 9,000 | >= 10000 | **not met** |" in lines
    assert "| - p50, ms (192 in flight) | - |  |  |" in lines
    assert "commit `abc1234`" in lines[-1]


@pytest.mark.parametrize("name", plots.PLOTS)
def test_plots_are_well_formed(name: str) -> None:
    for _, text in plots.of(record.Part(name, MACHINE, _everything(name))):
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme:dark" in text


def test_a_record_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.put("curves", MACHINE, [curve("host_pass_by_hosts", "ms", [(10, 1.0), (100, 10.0)])], path)

    assert json.loads(path.read_text())["parts"]["curves"]["figures"][0]["value"] == 1.0


def _everything(name: str) -> dict[str, record.Plain]:
    """Any value for each figure that a block of the part names."""
    names = {cell for block in page.BLOCKS.values() if block.part == name for row in block.rows for cell in row.cells}
    if name == "curves":
        return {each: curve(each, "ms", [(10, 1.0), (100, 12.0), (1000, 99.0)]).plain() for each in names}
    return {each: Figure(each, 1.5, "ms").plain() for each in names}
