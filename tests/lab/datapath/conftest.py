"""iptables in both flavours, for FORWARD chains that drop; the same programs as in `coexistence`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.coexistence.programs import make_wrappers


@pytest.fixture(scope="session")
def wrappers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wrappers(tmp_path_factory.mktemp("programs"))
