"""A controller that speaks TLS: who is let in, who is told why not, and files that change while it runs."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from controller.security import authority
from controller.security.certificates import Certificates, TlsSettings
from kvnet.client import Client
from kvnet.errors import CertificateUnusable, ControllerUntrusted, Invalid
from kvnet.tls import Trust
from tests.security.secured import Secured, kvnet, own_ca, secured

pytestmark = pytest.mark.anyio
DAY_S = 86_400.0


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def site(ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("site"), "--ca", str(ca)) as made:
        yield made


@pytest.fixture(scope="module")
def foreign() -> trustme.CA:
    return trustme.CA(organization_name="nobody's authority")


async def refusal_of(url: str, trust: Trust, token: str = "") -> ControllerUntrusted:
    with pytest.raises(ControllerUntrusted) as refusal:
        async with Client(url, token=token, trust=trust) as client:
            await client.whoami()
    return refusal.value


async def test_whoever_trusts_the_ca_is_served(site: Secured, ca: Path) -> None:
    async with Client(site.url, token=site.token, trust=Trust(str(ca / "ca.pem"))) as client:
        who = await client.whoami()
    assert (who["name"], who["via"]) == ("root", "token")


async def test_a_controller_of_another_ca_is_not_believed(site: Secured, foreign: trustme.CA, tmp_path: Path) -> None:
    foreign.cert_pem.write_to_path(tmp_path / "ca.pem")

    for trust in (Trust(str(tmp_path / "ca.pem")), Trust()):
        refusal = await refusal_of(site.url, trust)
        assert "not trusted" in refusal.detail
        assert "--ca-file" in refusal.fix


async def test_a_name_that_the_certificate_is_not_for_is_told(ca: Path, site: Secured) -> None:
    refusal = await refusal_of(site.url.replace("127.0.0.1", "0.0.0.0"), Trust(str(ca / "ca.pem")))
    assert "not for 0.0.0.0" in refusal.detail


async def test_http_to_https_and_the_other_way_round_are_told(site: Secured, ca: Path, tmp_path: Path) -> None:
    plain = await refusal_of(site.url.replace("https:", "http:"), Trust())
    assert "speaks TLS" in plain.detail
    assert "https://" in plain.fix

    with secured(tmp_path) as clear:
        crypted = await refusal_of(clear.url.replace("http:", "https:"), Trust(str(ca / "ca.pem")))
    assert "does not speak TLS" in crypted.detail
    assert "http://" in crypted.fix


async def test_a_client_certificate_of_a_foreign_ca_ends_the_handshake(
    site: Secured, ca: Path, foreign: trustme.CA, tmp_path: Path
) -> None:
    shown = foreign.issue_cert("client@nobody.test")
    shown.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    both = str(tmp_path / "client.pem")

    refusal = await refusal_of(site.url, Trust(str(ca / "ca.pem"), both, both), site.token)

    assert "does not trust the CA" in refusal.detail


async def test_an_expired_client_certificate_ends_the_handshake(site: Secured, ca: Path) -> None:
    places, _ = authority.issue_host(ca, "late", time.time() - 20 * DAY_S, days=10)

    refusal = await refusal_of(site.url, Trust(str(ca / "ca.pem"), str(places.certificate), str(places.key)))

    assert "has expired" in refusal.detail
    assert "join" in refusal.fix


async def test_a_certificate_that_nobody_registered_is_nobody(site: Secured, ca: Path) -> None:
    """Of the right CA, in the name of a host; but no host joined with it."""
    places, _ = authority.issue_host(ca, "h9", time.time(), days=10)
    trust = Trust(str(ca / "ca.pem"), str(places.certificate), str(places.key))
    found = kvnet("--controller", site.url, "--ca-file", trust.ca, "--certificate", trust.certificate,
                  "--key", trust.key, "whoami", "-o", "json")  # fmt: skip
    assert json.loads(found.stderr)["code"] == "unauthenticated"


def test_old_versions_of_tls_are_refused_and_new_ones_are_not(site: Secured, ca: Path) -> None:
    """Asked by openssl, an eye of its own."""

    def spoken(*options: str) -> str:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", "-CAfile", str(ca / "ca.pem")]
        found = subprocess.run([*command, "-brief", *options], input="", capture_output=True, text=True, timeout=20,
                               check=False)  # fmt: skip
        return found.stdout + found.stderr

    assert "Verification: OK" in spoken("-tls1_3")
    assert "Verification: OK" in spoken("-tls1_2")
    for old in ("-tls1_1", "-tls1"):
        assert "CONNECTION ESTABLISHED" not in spoken(old, "-cipher", "ALL:@SECLEVEL=0")
    for weak in ("AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "NULL"):
        assert "CONNECTION ESTABLISHED" not in spoken("-tls1_2", "-cipher", f"{weak}:@SECLEVEL=0")


def shown_by(site: Secured, ca: Path) -> str:
    context = ssl.create_default_context(cafile=ca / "ca.pem")
    with (
        socket.create_connection(("127.0.0.1", site.port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as crypted,
    ):
        return crypted.getpeercert()["serialNumber"].lower().lstrip("0")  # type: ignore[index,union-attr]


def test_a_renewed_certificate_is_taken_without_a_restart(site: Secured, ca: Path) -> None:
    _, new = authority.issue_controller(ca, [], [], time.time(), days=90)
    assert shown_by(site, ca) != f"{new.serial_number:x}"

    site.renew()

    site.until_said("certificate-renewed")
    assert shown_by(site, ca) == f"{new.serial_number:x}"


def test_a_renewed_certificate_is_found_by_itself_and_a_broken_one_changes_nothing(site: Secured, ca: Path) -> None:
    good, before = (ca / "controller.pem").read_bytes(), shown_by(site, ca)
    site.said.clear()
    (ca / "controller.pem").write_bytes(good[:200])
    assert "the old one goes on" in site.until_said("certificate-unusable")
    assert shown_by(site, ca) == before

    (ca / "controller.pem").write_bytes(good)
    site.until_said("certificate-renewed")
    assert shown_by(site, ca) == before


def settings(certificate: Path, key: Path) -> TlsSettings:
    return TlsSettings(certificate, key)


def test_what_cannot_be_served_with_is_refused_before_anything_listens(tmp_path: Path, ca: Path) -> None:
    one, other = (trustme.CA().issue_cert("localhost") for _ in range(2))
    for name, made in (("one", one), ("other", other)):
        made.private_key_pem.write_to_path(tmp_path / f"{name}-key.pem")
        made.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    (tmp_path / "junk.pem").write_text("junk")
    old, _ = authority.issue_controller(tmp_path_ca(tmp_path), [], [], time.time() - 20 * DAY_S, days=10)
    early, _ = authority.issue_host(ca, "early", time.time() + 10 * DAY_S, days=5)
    client, _ = authority.issue_host(ca, "client", time.time(), days=5)

    def refused(found: TlsSettings) -> str:
        with pytest.raises(CertificateUnusable) as refusal:
            Certificates(found, time.time)
        assert refusal.value.fix
        return refusal.value.detail

    assert "not that of" in refused(settings(tmp_path / "one.pem", tmp_path / "other-key.pem"))
    assert "No such file" in refused(settings(tmp_path / "none.pem", tmp_path / "one-key.pem"))
    assert "No such file" in refused(settings(tmp_path / "one.pem", tmp_path / "none.pem"))
    assert "PEM" in refused(settings(tmp_path / "junk.pem", tmp_path / "one-key.pem"))
    assert "expired" in refused(settings(old.certificate, old.key))
    assert "not valid before" in refused(settings(early.certificate, early.key))
    assert "not one for servers" in refused(settings(client.certificate, client.key))


def test_a_certificate_that_ends_soon_is_told(tmp_path: Path) -> None:
    places, _ = authority.issue_controller(tmp_path_ca(tmp_path), [], [], time.time(), days=20)
    late = [0.0]
    found = Certificates(settings(places.certificate, places.key), lambda: time.time() + late[0])
    assert found.expiring == ""
    late[0] = 15 * DAY_S
    assert "expires in 5.0 days" in found.expiring
    late[0] = 21 * DAY_S
    assert "has expired" in found.expiring


def tmp_path_ca(tmp_path: Path) -> Path:
    authority.create(tmp_path / "old", time.time() - 50 * DAY_S, days=100, permitted=())
    return tmp_path / "old"


def test_options_that_contradict_each_other_are_refused(tmp_path: Path, ca: Path) -> None:
    for given in (
        (tmp_path / "c", None, None, None),
        (None, tmp_path / "k", None, None),
        (None, None, ca / "ca.pem", None),
    ):
        with pytest.raises(Invalid):
            TlsSettings.of(*given)
    assert TlsSettings.of(None, None, None, None) is None
    authority.create(tmp_path / "fresh", time.time(), days=10, permitted=())
    with pytest.raises(CertificateUnusable) as refusal:
        TlsSettings.of(None, None, None, tmp_path / "fresh")
    assert "kvnet ca issue controller" in refusal.value.fix


def test_a_bad_certificate_is_exit_code_2_and_no_socket(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("junk")
    found = kvnet("controller", "--store", "memory://", "--listen", "127.0.0.1:0",
                  "--tls-cert", str(tmp_path / "c.pem"), "--tls-key", str(tmp_path / "c.pem"))  # fmt: skip
    assert found.returncode == 2
    assert "not in PEM" in found.stderr
    assert "Fix:" in found.stderr
