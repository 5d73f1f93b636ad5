"""Store URLs: what they mean, what is wrong with them, and that no secret of theirs is ever shown."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.open import open_store
from backends.url import Endpoint, Secret, ServerUrl, Tls, parse_server_url, shown
from kvnet.errors import Invalid, NotSupported

SECRET = "s3cr3t!"


def parse(url: str, **environment: str) -> ServerUrl:
    return parse_server_url(url, environment)


def test_the_least_is_a_host() -> None:
    assert parse("etcd://h1") == ServerUrl("etcd", (Endpoint("h1", 2379),))
    assert parse("consul://h1") == ServerUrl("consul", (Endpoint("h1", 8500),))
    assert parse("zk://h1") == ServerUrl("zookeeper", (Endpoint("h1", 2181),))


def test_tls_has_ports_of_its_own_and_believes_the_system_where_no_authority_is_given() -> None:
    assert [parse(f"{scheme}://h").endpoints[0].port for scheme in ("etcds", "consuls", "zks")] == [2379, 8501, 2281]
    assert parse("etcds://h").tls == Tls()
    assert parse("etcd://h").tls is None


def test_several_endpoints_a_root_and_addresses_in_brackets() -> None:
    url = parse("zk://h1,h2:2182,[::1]:3,[fd00::1]/sites/north")

    assert [str(one) for one in url.endpoints] == ["h1:2181", "h2:2182", "[::1]:3", "[fd00::1]:2181"]
    assert url.root == "sites/north"
    assert parse("etcd://h/").root == parse("etcd://h").root == "kvnet"


def test_certificates_are_files_that_are_there(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("ca", "cert", "key")}
    for file in files.values():
        file.write_text("PEM")
    query = "&".join(f"{name}={file}" for name, file in files.items())

    assert parse(f"consuls://h/r?{query}").tls == Tls(**{name: str(file) for name, file in files.items()})
    with pytest.raises(Invalid, match="cannot be read"):
        parse(f"consuls://h?ca={tmp_path}/missing")
    with pytest.raises(Invalid, match="needs its key"):
        parse(f"consuls://h?cert={files['cert']}")
    with pytest.raises(Invalid, match="without TLS") as error:
        parse(f"consul://h?ca={files['ca']}")
    assert "consuls://" in error.value.fix


def test_the_nearest_secret_wins(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from-file\n")
    there = {"KVNET_STORE_PASSWORD": "from-environment"}

    assert parse("etcd://u:in%2Furl@h", **there).secret.read() == "in/url"
    assert parse(f"etcd://u@h?password_file={file}", **there).secret.read() == "from-file"
    assert parse("etcd://u@h", **there).secret.read() == "from-environment"
    assert parse("etcd://u@h", KVNET_STORE_PASSWORD_FILE=str(file)).secret.read() == "from-file"
    assert parse("consul://:t@h").secret.read() == "t"
    assert parse("consul://h", KVNET_STORE_TOKEN="t2").secret.read() == "t2"
    assert not parse("consul://h", **there).secret
    assert parse("zk://h", KVNET_STORE_USER="me", **there).user == "me"


def test_a_secret_file_is_read_anew_and_must_hold_something(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    secret = parse(f"consul://h?token_file={file}").secret
    with pytest.raises(Invalid, match="No such file"):
        secret.read()
    for content in ("one", "two"):
        file.write_text(content)
        assert secret.read() == content
    file.write_text(" \n")
    with pytest.raises(Invalid, match="empty"):
        secret.read()
    file.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(Invalid, match="not text"):
        secret.read()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("etcd://", "is not HOST"),
        ("etcd://h1,,h2", "is not HOST"),
        ("etcd://h1:", "is not HOST"),
        ("etcd://h1:0", "is not HOST"),
        ("etcd://h1:99999", "is not HOST"),
        ("etcd://h1:port", "is not HOST"),
        ("etcd://h 1", "is not HOST"),
        ("etcd://[::1", "is not HOST"),
        ("etcd://h/a//b", "cannot be a root"),
        ("etcd://h/../etc", "cannot be a root"),
        ("etcd://h/%20", "cannot be a root"),
        ("etcd://h/.kvnet", "cannot be a root"),
        ("etcd://h/" + "x" * 129, "cannot be a root"),
        ("etcd://h?tls=yes", "unknown parameter 'tls'"),
        ("etcd://h?token_file=/x", "unknown parameter"),
        ("consul://h?password_file=/x", "unknown parameter"),
        ("zk://h?auth=", "has no value"),
        ("zk://h?auth=kerberos", "digest or sasl"),
        ("zk://h?auth=sasl&auth=digest", "given twice"),
        ("redis://h", "no store called 'redis'"),
        ("zookeeper://h", "no store called 'zookeeper'"),
    ],
)
def test_what_is_wrong_is_said(url: str, says: str) -> None:
    with pytest.raises(Invalid, match=says.replace("(", r"\(")):
        parse(url)


WITH_SECRETS = [
    f"etcd://root:{SECRET}@h1",
    f"etcd://root:{SECRET}@h1,h2:port/x",
    f"consul://:{SECRET}@h1?nonsense=1",
    f"zks://u:{SECRET}@h1/a//b",
    f"redis://u:{SECRET}@h1",
    f"zk://u:a@{SECRET}@h1:99999",
]


@pytest.mark.parametrize("url", WITH_SECRETS)
def test_no_message_and_no_repr_shows_a_secret(url: str) -> None:
    assert SECRET not in shown(url)
    assert SECRET not in repr(Secret(SECRET))
    try:
        parsed = parse(url)
        said = repr(parsed) + str(parsed)
    except Invalid as error:
        said = error.detail + error.fix
    assert SECRET not in said


@pytest.mark.anyio
@pytest.mark.parametrize("url", [url for url in WITH_SECRETS if not url.endswith("@h1")])
async def test_opening_shows_no_secret_either(url: str) -> None:
    with pytest.raises(Invalid) as error:
        await open_store(url)
    assert SECRET not in error.value.detail + error.value.fix


@given(st.text(alphabet="abcd:@/?#%[],.&= ", max_size=20))
def test_any_text_is_a_url_or_invalid(text: str) -> None:
    try:
        url = parse(f"etcd://{text}")
    except Invalid:
        return
    assert url.endpoints
    assert all(0 < one.port < 65536 for one in url.endpoints)


@pytest.mark.anyio
async def test_a_scheme_that_is_none_names_all_stores() -> None:
    with pytest.raises(Invalid, match="no store called 'redis'") as error:
        await open_store("redis://h")
    for store in ("sqlite", "etcd", "consul", "zk", "http", "unix", "memory"):
        assert store in error.value.fix


@pytest.mark.anyio
@pytest.mark.parametrize(("scheme", "kind"), [("etcd", "etcd"), ("consuls", "consul"), ("zk", "zookeeper")])
async def test_a_client_library_that_is_missing_is_named_by_its_extra(
    monkeypatch: pytest.MonkeyPatch, scheme: str, kind: str
) -> None:
    monkeypatch.setitem(sys.modules, f"backends.{kind}", None)
    with pytest.raises(NotSupported, match=rf"kvnet\[{kind}\]") as error:
        await open_store(f"{scheme}://127.0.0.1:1")
    assert error.value.fix.startswith(f"pip install 'kvnet[{kind}]'")
