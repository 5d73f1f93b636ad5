"""Profiles: where controllers are and how to print, under names, in one file of the user's.

`$XDG_CONFIG_HOME/kvnet/profiles.toml`, by default below `~/.config`. Reading is strict: what is misspelt would
otherwise be another controller than the one that was meant. A token in the file is for its owner's eyes only. Written
whole or not at all; only by `kvnet profile`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kvnet.errors import Invalid, NotFound
from kvnet.rules import NAME

FORMS = ("table", "wide", "json", "yaml", "name", "csv")
MEMBERS = ("controller", "token_file", "token", "ca", "certificate", "key", "socket", "output")
FILES = ("token_file", "ca", "certificate", "key")
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Profile:
    """What is "" is not said here."""

    controller: str = ""
    token_file: str = ""
    token: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    socket: str = ""
    output: str = ""

    def given(self) -> dict[str, str]:
        return {member: value for member in MEMBERS if (value := getattr(self, member))}


@dataclass(frozen=True, slots=True)
class Profiles:
    """`current`: the one that is used when none is named; "" for none."""

    current: str = ""
    named: Mapping[str, Profile] = field(default_factory=dict)

    def get(self, name: str, path: Path) -> Profile:
        """Raises: NotFound."""
        if name not in self.named:
            known = ", ".join(sorted(self.named)) or "none"
            raise NotFound(
                f"there is no profile {name!r} in {path}",
                fix=f"there are: {known}; 'kvnet profile set {name} --controller URL' makes one",
            )
        return self.named[name]

    def with_one(self, name: str, profile: Profile) -> Profiles:
        """The first one is the current one, too."""
        return Profiles(self.current or ("" if self.named else name), {**self.named, name: profile})

    def without(self, name: str) -> Profiles:
        current = "" if self.current == name else self.current
        return Profiles(current, {key: one for key, one in self.named.items() if key != name})


def read(path: Path) -> Profiles:
    """None, if there is no such file.

    Raises:
        Invalid: it cannot be read, is not what it should be, or shows a token to others.
    """
    try:
        text, mode = path.read_text(encoding="utf-8"), path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Profiles()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Invalid(f"the profiles in {path} cannot be read: {why}", fix=f"make {path} readable for you") from error
    found = parsed(text, path)
    if mode & OTHERS and any(one.token for one in found.named.values()):
        raise Invalid(f"{path} holds a token and others may read it", fix=f"chmod 600 {path}; then issue another token")
    return found


def parsed(text: str, path: Path) -> Profiles:
    """Raises: Invalid."""
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _broken(path, str(error)) from error
    unknown = sorted(set(document) - {"current", "profiles"})
    if unknown:
        raise _broken(path, f"there is no setting {unknown[0]!r}; there are 'current' and tables [profiles.NAME]")
    tables = document.get("profiles", {})
    if not isinstance(tables, dict):
        raise _broken(path, "'profiles' is not a table")
    named = {name: _profile(name, table, path) for name, table in tables.items()}
    current = document.get("current", "")
    if not isinstance(current, str) or (current and current not in named):
        raise _broken(path, f"current = {current!r} is not one of its profiles")
    return Profiles(current, named)


def _profile(name: str, table: Any, path: Path) -> Profile:
    if not isinstance(table, dict) or not NAME.match(name):
        raise _broken(path, f"[profiles.{name}] is not a profile")
    for member, value in table.items():
        if member not in MEMBERS:
            raise _broken(path, f"profile {name!r} has a setting {member!r}; there are {', '.join(MEMBERS)}")
        if not isinstance(value, str):
            raise _broken(path, f"{member} of profile {name!r} is not a text in quotes")
    profile = Profile(**table)
    if profile.output and profile.output not in FORMS:
        raise _broken(path, f"output of profile {name!r} is {profile.output!r}; there are {', '.join(FORMS)}")
    files = {member: value for member in FILES if (value := getattr(profile, member))}
    return replace(profile, **{member: str(path.parent / Path(value).expanduser()) for member, value in files.items()})


def _broken(path: Path, why: str) -> Invalid:
    return Invalid(f"the profiles in {path} are broken: {why}", fix="correct the file, or move it away")


def written(profiles: Profiles) -> str:
    """The text of the file."""
    parts = ["# Written by 'kvnet profile'; comments do not survive that.\n"]
    if profiles.current:
        parts.append(f"current = {_quoted(profiles.current)}\n")
    for name, profile in sorted(profiles.named.items()):
        parts.append(f"\n[profiles.{_quoted(name)}]\n")
        parts += [f"{member} = {_quoted(value)}\n" for member, value in profile.given().items()]
    return "".join(parts)


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's escapes are among its own, but for halves of characters; DEL is escaped there."""
    import json

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def write(path: Path, profiles: Profiles) -> None:
    """Raises: Invalid."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                out.write(written(profiles))
            fresh.rename(path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise Invalid(
            f"the profiles cannot be written to {path}: {error.strerror or error}", fix="look at its folder"
        ) from error
