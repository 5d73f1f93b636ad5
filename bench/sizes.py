"""How large a measurement is: as published, or just large enough to show that it runs."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")


def pick(quick: bool, small: T, published: T) -> T:
    return small if quick else published


def is_quick() -> bool:
    """As `make bench` told the processes that it starts."""
    return bool(os.environ.get("KVNET_BENCH_QUICK"))
