"""A short soak of every store: no double owner, nothing lost, nothing leaked, every packet of a bystander arrives.

What `make soak` does for twenty minutes, in less than one. Only what must never happen is judged; how long things take
is the machine's affair.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.soak.ledger import Outcome
from tests.soak.report import lines
from tests.soak.run import soak
from tests.soak.settings import KINDS, STORES, Options

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]

SECONDS = 40.0
SEED = 7


def on_its_own(store: str) -> Any:
    """With other tests of sites on this store in one process, where tests run in several: after each other."""
    return pytest.param(store, id=store, marks=pytest.mark.xdist_group(f"site-{KINDS.get(store, store)}"))


@pytest.mark.parametrize("store", [on_its_own(store) for store in STORES])
async def test_a_site_keeps_its_promises_while_everything_goes_wrong(store: str, tmp_path: Path) -> None:
    said: list[str] = []
    options = Options(store, SECONDS, SEED, users=4, pause=(0.5, 2.5))

    report = await soak(options, tmp_path, said.append)

    told = report.as_json()
    (tmp_path / "report.json").write_text(json.dumps(told, indent=1))
    assert report.is_clean, "\n".join([*said, *lines(told)])
    assert told["operations"]["all"][Outcome.ACKNOWLEDGED] > 0
    assert told["pings"]["sent"] > 0
    assert len(told["faults"]["by_kind"]) >= 6, told["faults"]["by_kind"]
