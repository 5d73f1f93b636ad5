"""Colours: only where a person looks, and only where they say something that words say as well.

NO_COLOR (any value) and TERM=dumb say no, CLICOLOR_FORCE (but "0") says yes to a pipe, CLICOLOR=0 says no; else it is
yes on a terminal. Nothing is told by a colour alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO

import click

# What the states and conditions of things look like; what is not here has no colour.
TONES: Mapping[str, str] = {
    "alive": "green",
    "active": "green",
    "true": "green",
    "down": "red",
    "fenced": "red",
    "false": "red",
    "unknown": "yellow",
    "deleting": "yellow",
    "leaving": "yellow",
    "evicted": "yellow",
    "pending": "yellow",
}
GOOD, BAD, WARNING, FAINT = "green", "red", "yellow", "bright_black"


def wanted(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    if environment.get("CLICOLOR_FORCE", "0") != "0":
        return True
    return environment.get("CLICOLOR") != "0" and stream.isatty()


def painted(text: str, tone: str, *, is_wanted: bool) -> str:
    return click.style(text, fg=tone) if is_wanted and tone else text


def bold(text: str, *, is_wanted: bool) -> str:
    return click.style(text, bold=True) if is_wanted else text


def tone_of(word: str) -> str:
    """The colour of a state or of a condition's value; "" for a word that has none."""
    return TONES.get(word, "")
