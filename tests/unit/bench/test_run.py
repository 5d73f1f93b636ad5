"""`make bench`: a part that fails keeps the others, one that hangs is ended, and what is done is on disk at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import record, run
from bench.figures import Figure


def published(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    """These parts in place of all others; each is the function that gives its figures."""
    modules = {f"bench.{name}": SimpleNamespace(figures=figures) for name, figures in parts.items()}
    monkeypatch.setattr(run, "PARTS", tuple(run.Part(name, 0.1, is_published=True) for name in parts))
    monkeypatch.setattr(run.importlib, "import_module", modules.__getitem__)


def good() -> Iterator[Figure]:
    yield Figure("good", 1.0, "s")


def failing() -> Iterator[Figure]:
    yield Figure("before", 1.0, "s")
    raise RuntimeError("no kernel here")


def hanging() -> Iterator[Figure]:
    yield Figure("first", 1.0, "s")
    time.sleep(30)


def test_what_fails_or_hangs_is_told_and_the_rest_is_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(monkeypatch, failing=failing, hanging=hanging, good=good)
    path = tmp_path / "record.json"

    status = run.main(["--record", str(path)])
    found = record.read(path)

    assert status == 1
    assert found["failing"].value("before") == 1.0
    assert "no kernel here" in found["failing"].figures["failing"]["note"]
    assert found["hanging"].value("first") == 1.0
    assert "not done after" in found["hanging"].figures["hanging"]["note"]
    assert found["good"].value("good") == 1.0
    assert {"cpu", "cores", "kernel", "python", "load_before", "load_after", "commit", "date", "took_s"} <= set(
        found["good"].machine
    )
    assert len(json.loads(capsys.readouterr().out)["parts"]) == 3


def test_a_quick_run_tells_small_sizes_to_its_parts_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sized(*, quick: bool = False) -> Iterator[Figure]:
        yield Figure("size", 1.0 if quick else 1e6, "")

    monkeypatch.setenv(run.QUICK, "")
    published(monkeypatch, sized=sized)
    path = tmp_path / "record.json"

    status = run.main(["--quick", "--record", str(path)])

    assert status == 0
    assert json.loads(capsys.readouterr().out)["parts"][0]["figures"][0]["value"] == 1.0
    assert not path.exists()


def test_a_part_that_nobody_knows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(["sclae"])

    assert ended.value.code == 2
    assert "no part is called sclae" in capsys.readouterr().err
