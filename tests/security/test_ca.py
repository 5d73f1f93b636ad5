"""The CA of a site: what it signs is good for one use, its keys are for their owner, and openssl agrees."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from controller.security import authority
from controller.security.ca import Authority
from kvnet.errors import CertificateUnusable, Invalid
from kvnet.tls import fingerprint_of, is_pinned, parse_fingerprint

NOW = 1_800_000_000.0
DAY_S = 86_400.0


@pytest.fixture
def made(tmp_path: Path) -> Path:
    authority.create(tmp_path / "ca", time.time(), days=3650, permitted=())
    return tmp_path / "ca"


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=20, check=False)


def verified(ca: Path, certificate: Path, purpose: str, *more: str) -> bool:
    return (
        openssl("verify", "-x509_strict", "-CAfile", ca / "ca.pem", "-purpose", purpose, *more, certificate).returncode
        == 0
    )


def test_a_controllers_certificate_is_good_for_a_server_and_a_hosts_for_a_client(made: Path) -> None:
    controller, _ = authority.issue_controller(made, ["kvnet.test"], ["192.0.2.9"], time.time(), days=30)
    host, _ = authority.issue_host(made, "h1", time.time(), days=30)

    for name in ("-verify_hostname=kvnet.test", "-verify_ip=192.0.2.9", "-verify_hostname=localhost"):
        option, _, value = name.partition("=")
        assert verified(made, controller.certificate, "sslserver", option, value)
    assert not verified(made, controller.certificate, "sslserver", "-verify_hostname", "other.test")
    assert not verified(made, controller.certificate, "sslclient")
    assert verified(made, host.certificate, "sslclient")
    assert not verified(made, host.certificate, "sslserver")


def test_it_signs_no_other_ca(made: Path, tmp_path: Path) -> None:
    """Path length 0: what a certificate of its signs is believed by nobody."""
    host, certificate = authority.issue_host(made, "h1", time.time(), days=30)
    key = serialization.load_pem_private_key(host.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    forged = Authority(certificate, key).issue_controller(["kvnet.test"], [], time.time())
    (tmp_path / "forged.pem").write_text(forged.certificate)
    (tmp_path / "chain.pem").write_text(host.certificate.read_text())

    found = openssl("verify", "-CAfile", made / "ca.pem", "-untrusted", tmp_path / "chain.pem", tmp_path / "forged.pem")

    assert found.returncode != 0


def test_a_ca_for_some_names_vouches_for_no_others(tmp_path: Path) -> None:
    authority.create(tmp_path, time.time(), days=30, permitted=["corp.test", "192.0.2.0/24"])
    inside, _ = authority.issue_controller(tmp_path, ["a.corp.test"], ["192.0.2.9"], time.time(), days=10)
    assert verified(tmp_path, inside.certificate, "sslserver")
    host, _ = authority.issue_host(tmp_path, "h1", time.time(), days=10)
    assert verified(tmp_path, host.certificate, "sslclient")

    again, _ = authority.issue_controller(tmp_path, [], [], time.time(), days=10)
    assert verified(tmp_path, again.certificate, "sslserver")

    before = inside.certificate.read_bytes()
    for names, addresses in ((["bank.test"], []), ([], ["198.51.100.1"]), (["a.corp.test", "evilcorp.test"], [])):
        with pytest.raises(Invalid, match="nobody would believe"):
            authority.issue_controller(tmp_path, names, addresses, time.time(), days=10)
        assert inside.certificate.read_bytes() == before
        outside = tmp_path / "outside.pem"
        outside.write_text(
            authority.load(tmp_path).issue_controller(names, addresses, time.time(), days=10).certificate
        )
        assert not verified(tmp_path, outside, "sslserver")


def test_keys_are_for_their_owner_and_one_that_others_may_read_is_refused(made: Path) -> None:
    authority.issue_controller(made, [], [], time.time(), days=30)
    for name in ("ca-key.pem", "controller-key.pem"):
        assert (made / name).stat().st_mode & 0o777 == 0o600

    (made / "ca-key.pem").chmod(0o640)
    with pytest.raises(CertificateUnusable) as refusal:
        authority.load(made)
    assert "chmod 600" in refusal.value.fix


def test_a_second_ca_in_the_same_directory_is_refused(made: Path) -> None:
    before = (made / "ca.pem").read_bytes()
    with pytest.raises(CertificateUnusable):
        authority.create(made, time.time(), days=30, permitted=())
    assert (made / "ca.pem").read_bytes() == before


def test_renewing_keeps_key_and_names(made: Path) -> None:
    places, first = authority.issue_controller(made, ["kvnet.test"], ["192.0.2.9"], time.time(), days=10)
    key = places.key.read_bytes()

    _, second = authority.issue_controller(made, [], [], time.time(), days=20)

    assert places.key.read_bytes() == key
    assert second.serial_number != first.serial_number
    assert [set(part) for part in authority.alternatives(second)] == [
        {"kvnet.test", "localhost"},
        {"192.0.2.9", "127.0.0.1", "::1"},
    ]


def test_nothing_outlives_the_ca() -> None:
    made = Authority.new(NOW, days=10)
    signed = x509.load_pem_x509_certificate(made.issue_host("h1", NOW + 5 * DAY_S, days=90).certificate.encode())
    assert signed.not_valid_after_utc == made.certificate.not_valid_after_utc


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey


def request_with(key: Key, common_name: str = "root") -> str:
    """That asks for a name, and to be a CA."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "P-384", "Ed25519"],
)
def test_of_a_request_only_the_key_counts(key: Key) -> None:
    made = Authority.new(NOW)

    signed = x509.load_pem_x509_certificate(made.sign_host(request_with(key), "h1", NOW).certificate.encode())

    assert signed.subject.rfc4514_string() == "CN=kvnet-host:h1"
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert signed.public_key() == key.public_key()


@pytest.mark.parametrize(
    "request_text",
    [
        request_with(rsa.generate_private_key(65537, 1024)),
        request_with(ec.generate_private_key(ec.SECP224R1())),
        request_with(dsa.generate_private_key(2048)),
        "",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "x" * 9000,
        "\udcff",
    ],
    ids=["RSA-1024", "P-224", "DSA", "empty", "damaged", "long", "surrogate"],
)
def test_weak_or_broken_requests_are_refused(request_text: str) -> None:
    with pytest.raises(Invalid):
        Authority.new(NOW).sign_host(request_text, "h1", NOW)


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    request = x509.load_pem_x509_csr(request_with(ec.generate_private_key(ec.SECP256R1())).encode())
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    text = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(Invalid):
        Authority.new(NOW).sign_host(text, "h1", NOW)


def test_a_fingerprint_is_of_one_certificate_alone() -> None:
    ours, theirs = Authority.new(NOW), Authority.new(NOW)

    assert fingerprint_of(ours.pem) == ours.fingerprint
    assert is_pinned(ours.pem, ours.fingerprint)
    assert not is_pinned(theirs.pem, ours.fingerprint)
    assert not is_pinned(ours.pem + theirs.pem, ours.fingerprint), "the second would be trusted, too"
    assert not is_pinned("", ours.fingerprint)
    shown = ":".join(ours.fingerprint[i : i + 2] for i in range(0, 64, 2)).upper()
    assert parse_fingerprint(f"sha256:{shown}") == ours.fingerprint
    for wrong in ("", "sha256:", "sha256:" + "0" * 63, "md5:" + "0" * 64, ours.fingerprint + "00"):
        with pytest.raises(Invalid):
            parse_fingerprint(wrong)
