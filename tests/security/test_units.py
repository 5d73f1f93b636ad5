"""The units take away what the programs do not need; judged by systemd itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
# As `systemd-analyze security` rates them: 10 is no protection at all, below 4 is OK.
MOST = {"kvnet-worker": 3.3, "kvnet-raw": 2.4, "kvnet-controller": 1.5}
CAPABILITIES = {
    "kvnet-worker": {"CAP_NET_ADMIN", "CAP_SYS_ADMIN"},
    "kvnet-raw": {"CAP_NET_RAW", "CAP_SYS_ADMIN"},
    "kvnet-controller": set(),
}


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", MOST)
def test_a_unit_exposes_no_more_than_it_did(name: str) -> None:
    found = analyze("security", "--offline=true", "--no-pager", UNITS / f"{name}.service").stdout
    rated = re.search(r"Overall exposure level for \S+: ([\d.]+)", found)
    assert rated is not None, found
    assert float(rated[1]) <= MOST[name]


@pytest.mark.parametrize("name", CAPABILITIES)
def test_a_unit_has_the_capabilities_that_are_documented_and_no_others(name: str) -> None:
    text = (UNITS / f"{name}.service").read_text()
    bounded = re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)
    assert [set(line.split()) for line in bounded] == [CAPABILITIES[name]]
    assert re.findall(r"^AmbientCapabilities=(.+)$", text, re.MULTILINE) == []
    assert "\nNoNewPrivileges=yes\n" in text


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """With a program that is there, in place of the one that is installed."""
    for unit in (*UNITS.glob("kvnet-*.service"), *UNITS.glob("kvnet-*.socket")):
        text = unit.read_text().replace("/usr/local/bin/kvnet", sys.executable)
        (tmp_path / unit.name).write_text(text)
        for drop_in in (UNITS / f"{unit.name}.d").glob("*.conf"):
            (tmp_path / f"{unit.name}.d").mkdir(exist_ok=True)
            (tmp_path / f"{unit.name}.d" / drop_in.name).write_text(drop_in.read_text())

    found = analyze("verify", "--man=no", *(one for one in sorted(tmp_path.iterdir()) if one.is_file()))

    assert [line for line in found.stderr.splitlines() if "kvnet" in line] == []
    assert found.returncode == 0, found.stderr
