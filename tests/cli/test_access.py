"""Tokens, who one is, logging in: by the command line, against a real controller that asks for tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.secured import Secured, kvnet, own_ca, secured


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def site(ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("site"), "--ca", str(ca)) as made:
        yield made


class Person:
    """Who has a token and trusts the CA."""

    def __init__(self, site: Secured, ca: Path, token: str) -> None:
        self._environment = {"KVNET_CONTROLLER": site.url, "KVNET_CA": str(ca / "ca.pem"), "KVNET_TOKEN": token}

    def says(self, *arguments: str, input: str | None = None) -> tuple[int, str, str]:
        done = kvnet(*arguments, input=input, **self._environment)
        return done.returncode, done.stdout, done.stderr

    def ok(self, *arguments: str) -> str:
        code, out, err = self.says(*arguments)
        assert code == 0, err
        return out


@pytest.fixture(scope="module")
def admin(site: Secured, ca: Path) -> Person:
    return Person(site, ca, site.token)


def test_a_token_is_printed_once_and_is_good_at_once(admin: Person, site: Secured, ca: Path) -> None:
    text = admin.ok("token", "create", "t1", "--role", "operator", "--scope", "team=red", "--ttl", "1h",
                    "--max-networks", "3", "--rate", "50").strip()  # fmt: skip

    who = json.loads(Person(site, ca, text).ok("whoami", "-o", "json"))
    assert (who["name"], who["role"], who["scope"]) == ("t1", "operator", {"team": "red"})
    assert who["limits"] == {"networks": 3, "endpoints": None, "rate": 50.0, "streams": None}
    secret = text.split("_", 2)[2]
    for shown in (admin.ok("token", "ls", "-o", "json"), admin.ok("token", "inspect", "t1"), admin.ok("events")):
        assert secret not in shown
        assert "hash" not in shown


def test_a_token_in_a_file_is_for_its_owner_and_replaces_none(admin: Person, tmp_path: Path) -> None:
    place = tmp_path / "t2.token"
    assert admin.ok("token", "create", "t2", "--role", "viewer", "--out", str(place)) == ""
    assert place.stat().st_mode & 0o777 == 0o600

    code, _, err = admin.says("token", "create", "t3", "--role", "viewer", "--out", str(place))
    assert code == 2
    assert "there already" in err
    assert "t3" not in admin.ok("token", "ls", "-q", "-o", "name"), "no token was made that nobody has"


def test_lists_filter_sort_and_print_as_every_list_does(admin: Person) -> None:
    admin.ok("token", "create", "l1", "--role", "viewer")
    admin.ok("token", "create", "l2", "--role", "host", "--host", "h1")

    assert admin.ok("token", "ls", "--filter", "role=host", "-o", "name").split() == ["l2"]
    assert admin.ok("token", "ls", "--filter", "name=l", "--columns", "name", "--no-headers").split() == ["l1", "l2"]
    assert "HOST" in admin.ok("token", "ls")


def test_a_rotated_secret_is_good_for_its_grace_and_a_removed_token_for_nothing(
    admin: Person, site: Secured, ca: Path
) -> None:
    old = admin.ok("token", "create", "r1", "--role", "viewer").strip()
    new = admin.ok("token", "rotate", "r1", "--grace", "1h").strip()
    assert old != new
    for text in (old, new):
        assert "r1" in Person(site, ca, text).ok("whoami")
    last = admin.ok("token", "rotate", "r1").strip()
    assert Person(site, ca, new).says("whoami")[0] == 1

    code, _, err = admin.says("token", "rm", "r1")
    assert code == 2
    assert "--yes" in err
    admin.ok("token", "rm", "r1", "--dry-run")
    assert "r1" in Person(site, ca, last).ok("whoami")
    assert admin.ok("token", "rm", "r1", "--yes").split() == ["r1"]
    code, _, err = Person(site, ca, last).says("whoami", "-o", "json")
    assert (code, json.loads(err)["code"]) == (1, "unauthenticated")
    assert admin.says("token", "rm", "r1", "--yes")[0] == 3
    admin.ok("token", "rm", "r1", "--yes", "--ignore-missing")


def test_the_last_admin_stays(admin: Person) -> None:
    code, _, err = admin.says("token", "rm", "root", "--yes")
    assert code == 4
    assert "last" in err


def test_a_viewer_is_told_which_role_it_takes(admin: Person, site: Secured, ca: Path) -> None:
    viewer = Person(site, ca, admin.ok("token", "create", "v1", "--role", "viewer").strip())
    code, _, err = viewer.says("network", "create", "n1", "--output", "json")
    assert (code, json.loads(err)["code"]) == (1, "forbidden")
    assert "operator" in err


def test_what_is_misspelt_makes_no_token(admin: Person) -> None:
    before = admin.ok("token", "ls", "-q")
    for wrong in (
        ("x1", "--role", "root"),
        ("x1", "--role", "host"),
        ("x1", "--role", "viewer", "--host", "h1"),
        ("x1", "--role", "viewer", "--docker"),
        ("x 1", "--role", "viewer"),
        ("x1", "--role", "viewer", "--ttl", "soon"),
        ("x1", "--role", "viewer", "--rate", "0"),
    ):
        assert admin.says("token", "create", *wrong)[0] == 2, wrong
    assert admin.ok("token", "ls", "-q") == before


def test_a_host_is_let_in_by_a_line_that_the_command_prints(admin: Person, ca: Path, tmp_path: Path) -> None:
    file = tmp_path / "h7.token"
    code, out, err = admin.says("host", "join-token", "h7", "--docker", "--scope", "team=red", "--out", str(file))
    assert (code, out) == (0, "")
    words = err.split("kvnet ", 1)[1].replace("--token-file h7.token", f"--token-file {file}").split()

    done = kvnet(*words, "--state-dir", str(tmp_path / "state"))

    assert done.returncode == 0, done.stderr
    [token] = json.loads(admin.ok("token", "inspect", admin.ok("token", "ls", "-f", "host=h7", "-q").strip()))
    assert (token["role"], token["grants"], token["scope"]) == ("host", ["docker"], {"team": "red"})
    assert token["certificate"]


def test_logging_in_keeps_a_profile_that_only_its_owner_reads(site: Secured, ca: Path, tmp_path: Path) -> None:
    place = {"XDG_CONFIG_HOME": str(tmp_path)}
    done = kvnet("login", "lab", "--controller", site.url, "--ca-file", str(ca / "ca.pem"), "--token-file", "-",
                 input=site.token, **place)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert site.token not in done.stdout + done.stderr

    assert "root" in kvnet("whoami", **place).stdout
    assert site.token not in kvnet("profile", "show", "lab", **place).stdout
    assert (tmp_path / "kvnet" / "profiles.toml").stat().st_mode & 0o777 == 0o600
    wrong = kvnet("login", "other", "--controller", site.url, "--ca-file", str(ca / "ca.pem"), "--token-file", "-",
                  input="kvnet_0123456789ab_" + "x" * 43, **place)  # fmt: skip
    assert wrong.returncode == 1
    assert "other" not in kvnet("profile", "ls", **place).stdout, "what does not work is not kept"


def test_asking_for_tokens_is_switched_off_and_on(admin: Person, site: Secured, ca: Path) -> None:
    assert json.loads(admin.ok("auth", "status", "-o", "json"))["required"] is True
    assert admin.says("auth", "off")[0] == 2
    nobody = Person(site, ca, "")
    try:
        assert json.loads(admin.ok("auth", "off", "--yes", "-o", "json"))["required"] is False
        assert "the cluster does not ask" in nobody.ok("whoami")
    finally:
        assert json.loads(admin.ok("auth", "require", "-o", "json"))["required"] is True
    assert nobody.says("whoami")[0] == 1


def test_the_commands_that_only_ask_load_no_server(site: Secured, ca: Path) -> None:
    from tests.cli.loading import SERVER, modules_loaded_by, tops

    os.environ["KVNET_TOKEN"] = site.token
    try:
        common = ["--controller", site.url, "--ca-file", str(ca / "ca.pem")]
        asked = (["token", "ls"], ["whoami"], ["auth", "status"], ["host", "join-token", "h8"])
        loaded = modules_loaded_by(*[[*common, *command] for command in asked])
    finally:
        del os.environ["KVNET_TOKEN"]
    assert not tops(loaded) & {*SERVER, "cryptography"}
