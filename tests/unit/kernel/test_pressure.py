"""How often the kernel's neighbour table was full."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.kernel.pressure import FOLDER, TABLES, refused_neighbours


def test_refusals_of_all_processors_are_added_up(tmp_path: Path) -> None:
    (tmp_path / "arp_cache").write_text(
        "entries  allocs table_fulls\n00000017 000001 0000000a\n00000017 000002 00000010\n"
    )
    (tmp_path / "ndisc_cache").write_text("entries  allocs table_fulls\n00000017 000001 00000000\n")

    assert refused_neighbours(tmp_path) == {"ipv4": 26, "ipv6": 0}


@pytest.mark.parametrize("text", ["", "entries allocs\n1 2\n", "entries table_fulls\n1\n", "table_fulls\nzz\n"])
def test_what_is_not_understood_is_left_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "arp_cache").write_text(text)

    assert refused_neighbours(tmp_path) == {}


def test_this_machines_kernel_is_understood_as_far_as_it_tells() -> None:
    assert set(refused_neighbours()) == {family for family, name in TABLES.items() if (FOLDER / name).exists()}
