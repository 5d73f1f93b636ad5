"""The audit of what is locked: what makes it fail, and that no answer never looks like a good one."""

from __future__ import annotations

import datetime
import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
TODAY = datetime.date(2026, 6, 1)
WEAK = {"name": "one", "version": "1.0", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"]}]}
SOUND = {"name": "two", "version": "2.0", "vulns": []}
UNKNOWN = {"name": "three", "skip_reason": "not found"}


@pytest.fixture(scope="module")
def audit() -> Any:
    loader = SourceFileLoader("audit_script", str(SCRIPTS / "audit"))
    spec = importlib.util.spec_from_loader("audit_script", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def entry(until: str, reason: str = "not reachable from kvnet", name: str = "CVE-1") -> str:
    return f'[[accepted]]\nid = "{name}"\nreason = "{reason}"\nuntil = {until}\n'


def test_a_known_weakness_is_found_unless_it_is_accepted_by_any_of_its_names(audit: Any) -> None:
    assert audit.judge([WEAK, SOUND], {})[0] == ["one 1.0: PYSEC-1 (better: 1.1)"]
    assert audit.judge([WEAK, SOUND], {"CVE-1": "why"})[0] == []
    assert audit.judge([WEAK, UNKNOWN], {})[1] == ["three"]


def test_what_is_accepted_needs_a_reason_and_ends(audit: Any) -> None:
    assert audit.read_accepted(entry("2026-06-01"), TODAY) == ({"CVE-1": "not reachable from kvnet"}, [])
    for text in (entry("2026-05-31"), entry("2026-07-01", reason=" "), entry("true"), entry("2026-07-01", name="")):
        accepted, wrong = audit.read_accepted(text, TODAY)
        assert not accepted
        assert len(wrong) == 1
    audit.read_accepted((SCRIPTS / "audit-accepted.toml").read_text(), TODAY)


def test_an_answer_that_knows_nothing_is_none(audit: Any, tmp_path: Path) -> None:
    answers, why = audit.known(["a==1", "b==2"], 0.0, tmp_path / "kept", lambda _: [UNKNOWN, UNKNOWN])

    assert answers is None
    assert "2 of 2 packages are not known" in why


def test_an_answer_is_kept_for_a_day_and_for_one_lock_file(audit: Any, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def ask(requirements: list[str]) -> list[dict[str, Any]]:
        asked.append(requirements)
        return [SOUND] * len(requirements)

    kept, day = tmp_path / "kept", 86_400.0
    assert audit.known(["two==2"], 0.0, kept, ask) == ([SOUND], "")
    assert audit.known(["two==2"], day - 1, kept, ask) == ([SOUND], "")
    assert len(asked) == 1
    audit.known(["two==2"], day + 1, kept, ask)
    audit.known(["two==3"], day + 2, kept, ask)
    assert len(asked) == 3


def test_where_nobody_answers_that_is_said_and_asked_again_later(audit: Any, tmp_path: Path) -> None:
    def nobody(_: list[str]) -> list[dict[str, Any]]:
        raise OSError("the network is away")

    kept = tmp_path / "kept"
    assert audit.known(["two==2"], 0.0, kept, nobody) == (None, "the network is away")
    assert audit.known(["two==2"], 60.0, kept, lambda _: [SOUND]) == (None, "the network is away")
    assert audit.known(["two==2"], 3601.0, kept, lambda _: [SOUND]) == ([SOUND], "")


def test_what_is_locked_is_read(audit: Any) -> None:
    assert audit.locked("# a\naiohttp==3.1 ; python_version < '4'\n    # via x\n-e .\nzipp==1\n") == [
        "aiohttp==3.1",
        "zipp==1",
    ]
    assert len(audit.locked((SCRIPTS.parent / "constraints.txt").read_text())) > 30
