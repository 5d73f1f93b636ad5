"""What a controller asks a host's worker, and what that answers: passing values in the store, never part of a network.

A question changes nothing at the host that outlives it, and nobody's desired state follows from an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_ANSWER_BYTES = 200_000  # below the store's 256 KB a value, with room for the envelope
MAX_ANSWER_S = 20.0


@dataclass(frozen=True, slots=True)
class Question:
    """Under `questions/<host>/<id>`. `kind` is one of the worker's; `parameters` are plain JSON."""

    id: str
    host: str
    kind: str
    asked_at: float
    asker: str
    request_id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """Under `answers/<id>`: the result, or the problem object of what went wrong."""

    id: str
    host: str
    answered_at: float
    result: Mapping[str, Any] | None = None
    problem: Mapping[str, Any] | None = None
