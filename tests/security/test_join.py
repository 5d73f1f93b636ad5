"""Joining: a join token becomes one host's credential, once; and its certificate is renewed in time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from backends.memory import MemoryStore
from backends.store import Check, Delete, Put, Revision, Unknown, Write
from controller.journal import Changed
from controller.requests import Caller
from controller.security import authority
from controller.security.ca import Authority
from controller.security.joining import Joining, JoinRequest
from kvnet import codec, keys
from kvnet.client import Client
from kvnet.errors import AlreadyJoined, ControllerUntrusted, Invalid, RateLimited, StateUnusable, Unauthenticated
from kvnet.security import Grant, Role, Token, TokenText, hash_of
from kvnet.tls import Trust
from tests.security.secured import Secured, kvnet, secured
from worker import identity
from worker.controller import HttpController
from worker.identity import About
from worker.joining import Wish, join
from worker.keymaking import Request, made_apart, make
from worker.log import Log
from worker.ports import Time
from worker.renewal import Renewal, is_due

pytestmark = pytest.mark.anyio
NOW, DAY_S = 1_800_000_000.0, 86_400.0
CALLER = Caller("anonymous@192.0.2.1", "r1", "192.0.2.1")
TEXT = TokenText("0123456789ab", "s" * 43)
JOIN_TOKEN = Token(
    TEXT.id, "h1-join", Role.JOIN, NOW, "root", hash_of(TEXT.secret), host="h1", scope={"team": "red"},
    grants=(Grant.DOCKER,), expires_at=NOW + 900,
)  # fmt: skip


class Writer:
    """Commits as the controller's does. `loses`: how many answers are lost after the commit; `just_before`: what
    somebody else commits a moment earlier, once."""

    def __init__(self, store: MemoryStore, loses: int = 0) -> None:
        self._store = store
        self.loses = loses
        self.just_before: Sequence[Write] = ()
        self.told: list[Changed] = []

    async def commit(self, checks: list[Check], writes: list[Write], caller: Caller, *changes: Changed) -> Revision:
        if self.just_before:
            await self._store.commit([], self.just_before)
            self.just_before = ()
        revision = await self._store.commit(checks, writes)
        self.told += changes
        if self.loses:
            self.loses -= 1
            raise Unknown("the answer was lost")
        return revision


class Site:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.writer = Writer(self.store)
        self.now = NOW
        self.authority: Authority | None = Authority.new(NOW)
        self.joining = Joining(self.store, self.writer, lambda: self.now, lambda _: True)  # type: ignore[arg-type]
        self.joining.signer = self._signer

    def _signer(self):  # type: ignore[no-untyped-def]
        found = self.authority
        return None if found is None else lambda request, host: found.sign_host(request, host, self.now).certificate

    async def put(self, token: Token) -> None:
        await self.store.commit([], [Put(keys.token(token.id), codec.encode(token))])

    async def token(self) -> Token:
        entry = await self.store.get(keys.token(TEXT.id))
        assert entry is not None
        return codec.decode(Token, entry.value)


@pytest.fixture
async def site() -> Site:
    made = Site()
    await made.put(JOIN_TOKEN)
    return made


def asked(secret: str = "own", **more: object) -> JoinRequest:
    return replace(JoinRequest(str(TEXT), hash_of(secret)), **more)  # type: ignore[arg-type]


async def test_a_credential_that_is_removed_at_that_moment_is_not_brought_back(site: Site) -> None:
    request = make(None).request
    await site.joining.join(asked(certificate_request=request), CALLER)
    gone = (Delete(keys.token(TEXT.id)),)

    site.writer.just_before = gone
    with pytest.raises(Unauthenticated):
        await site.joining.renew(TEXT.id, request, "", CALLER)
    assert await site.store.get(keys.token(TEXT.id)) is None

    await site.put(JOIN_TOKEN)
    site.writer.just_before = gone
    with pytest.raises(Unauthenticated):
        await site.joining.join(asked(certificate_request=request, replaces=True), CALLER)
    assert await site.store.get(keys.token(TEXT.id)) is None


async def test_the_join_token_becomes_the_hosts(site: Site) -> None:
    request = make(None).request
    joined = await site.joining.join(asked(certificate_request=request), CALLER)

    found = await site.token()
    assert found == joined.token.value
    assert (found.role, found.host, found.scope, found.grants) == (Role.HOST, "h1", {"team": "red"}, (Grant.DOCKER,))
    assert found.expires_at is None
    assert found.hash == hash_of("own")
    assert found.certificate
    assert "kvnet-host:h1" in subject_of(joined.certificate)
    assert b"own" not in b"".join(change.after or b"" for change in site.writer.told)
    assert all(found.hash.encode() not in (change.after or b"") for change in site.writer.told)


def subject_of(pem: str) -> str:
    from cryptography.x509 import load_pem_x509_certificate

    return load_pem_x509_certificate(pem.encode()).subject.rfc4514_string()


async def test_of_many_that_use_it_at_once_exactly_one_has_it(site: Site) -> None:
    outcomes = await asyncio.gather(
        *(site.joining.join(asked(f"own{n}"), CALLER) for n in range(16)), return_exceptions=True
    )

    won = [one for one in outcomes if not isinstance(one, BaseException)]
    assert len(won) == 1
    assert all(isinstance(one, Unauthenticated) for one in outcomes if isinstance(one, BaseException))
    assert (await site.token()).hash == won[0].token.value.hash


@pytest.mark.parametrize("lost", [1, 2])
async def test_whoever_lost_the_answer_asks_again_and_nobody_else_can(site: Site, lost: int) -> None:
    site.writer.loses = lost
    request = make(None).request

    first = await site.joining.join(asked(certificate_request=request), CALLER)
    again = await site.joining.join(asked(certificate_request=request), CALLER)

    found = await site.token()
    assert first.token.value.hash == again.token.value.hash == found.hash
    assert again.certificate
    for other in (asked("thief"), replace(asked(), token=f"kvnet_{TEXT.id}_{'x' * 43}")):
        with pytest.raises(Unauthenticated):
            await site.joining.join(other, CALLER)
    site.now += 3600
    with pytest.raises(Unauthenticated):
        await site.joining.join(asked(), CALLER)


async def test_a_host_gets_no_more_certificates_than_it_needs(site: Site) -> None:
    """Each would be a change that every controller hears of, and an entry in the journal."""
    request = make(None).request
    await site.joining.join(asked(certificate_request=request), CALLER)
    other = replace(JOIN_TOKEN, id="f" * 12, name="h2", host="h2", role=Role.HOST, expires_at=None)
    await site.put(other)

    async def made(token_id: str = TEXT.id) -> int:
        for count in range(100):
            try:
                await site.joining.renew(token_id, request, "", CALLER)
            except RateLimited:
                return count
        return 100

    assert await made() == 6
    assert await made() == 0
    with pytest.raises(RateLimited):
        await site.joining.join(asked(certificate_request=request), CALLER)
    assert (await site.token()).certificate, "what it has is good"
    site.now += 3600
    assert await made() == 6, "so many in an hour"
    assert await made(other.id) == 6, "others are not asked to wait for it"


async def test_an_expired_a_wrong_and_no_token_are_refused_alike(site: Site) -> None:
    said = set()
    for wrong in ("", "kvnet_x", f"kvnet_{TEXT.id}_{'x' * 43}", f"kvnet_{'f' * 12}_{'x' * 43}"):
        with pytest.raises(Unauthenticated) as refusal:
            await site.joining.join(replace(asked(), token=wrong), CALLER)
        said.add(refusal.value.detail)
    site.now = NOW + 901
    with pytest.raises(Unauthenticated) as refusal:
        await site.joining.join(asked(), CALLER)
    assert len({*said, refusal.value.detail}) == 1
    assert (await site.token()).role is Role.JOIN


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OPERATOR, Role.VIEWER])
async def test_no_other_token_is_good_for_joining(site: Site, role: Role) -> None:
    await site.put(replace(JOIN_TOKEN, role=role, host=""))
    with pytest.raises(Unauthenticated):
        await site.joining.join(asked(), CALLER)


async def test_the_name_is_the_tokens_and_another_is_refused_without_using_it(site: Site) -> None:
    with pytest.raises(Invalid):
        await site.joining.join(asked(host="h2"), CALLER)
    assert (await site.joining.join(asked(host="h1"), CALLER)).token.value.host == "h1"


async def test_a_bad_request_for_a_certificate_leaves_the_token_good(site: Site) -> None:
    with pytest.raises(Invalid):
        await site.joining.join(asked(certificate_request="junk"), CALLER)
    assert (await site.token()).role is Role.JOIN


async def test_a_host_that_has_joined_is_replaced_only_if_that_is_said(site: Site) -> None:
    await site.joining.join(asked(), CALLER)
    second = replace(JOIN_TOKEN, id="f" * 12, name="h1-again")
    await site.put(second)
    request = replace(asked("new"), token=f"kvnet_{second.id}_{TEXT.secret}")

    with pytest.raises(AlreadyJoined):
        await site.joining.join(request, CALLER)
    await site.joining.join(replace(request, replaces=True), CALLER)

    assert await site.store.get(keys.token(TEXT.id)) is None
    left = (await site.store.list(keys.TOKENS)).entries
    assert [codec.decode(Token, one.value).hash for one in left] == [hash_of("new")]


async def test_two_join_tokens_of_one_host_do_not_make_two_identities(site: Site) -> None:
    second = replace(JOIN_TOKEN, id="f" * 12, name="h1-again")
    await site.put(second)
    outcomes = await asyncio.gather(
        site.joining.join(asked("a"), CALLER),
        site.joining.join(replace(asked("b"), token=f"kvnet_{second.id}_{TEXT.secret}"), CALLER),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in outcomes) == ["AlreadyJoined", "Joined"]


async def test_a_renewal_leaves_the_certificate_that_is_in_use_good(site: Site) -> None:
    request = make(None).request
    first = (await site.joining.join(asked(certificate_request=request), CALLER)).token.value.certificate

    for _ in range(3):  # the answers are lost: the host still shows the first one
        await site.joining.renew(TEXT.id, request, first, CALLER)
        found = await site.token()
        assert found.previous_certificate == first
        assert found.certificate not in ("", first)
    await site.store.commit([], [Put(keys.token(TEXT.id), b"junk")])
    with pytest.raises(Unauthenticated):
        await site.joining.renew(TEXT.id, request, first, CALLER)


async def test_tokens_that_nobody_knows_are_looked_up_only_so_often(site: Site) -> None:
    site.joining = Joining(site.store, site.writer, lambda: site.now, lambda _: False)  # type: ignore[arg-type]
    seen = []
    for n in range(40):
        try:
            await site.joining.join(replace(asked(), token=f"kvnet_{n:012x}_{'x' * 43}"), CALLER)
        except (Unauthenticated, RateLimited) as error:
            seen.append(type(error))
    assert seen.count(Unauthenticated) <= 21
    assert (await site.joining.join(asked(), replace(CALLER, source="192.0.2.2"))).token.value.host == "h1"


def test_damage_to_an_identity_is_told_and_so_is_an_open_door(tmp_path: Path) -> None:
    assert identity.load(tmp_path) is None
    made = identity.save(tmp_path, About("h1", "https://c"), {"token": str(TEXT), "key.pem": "k", "ca.pem": "c"})
    assert identity.load(tmp_path) == made
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in made.directory.iterdir())
    assert made.trust == Trust(str(made.directory / "ca.pem"))

    (made.directory / "token").chmod(0o644)
    with pytest.raises(StateUnusable, match="others may read"):
        identity.load(tmp_path)
    (made.directory / "token").write_text("junk")
    with pytest.raises(StateUnusable):
        identity.load(tmp_path)
    (made.directory / "about.json").unlink()
    with pytest.raises(StateUnusable):
        identity.load(tmp_path)


def test_a_certificate_is_renewed_when_a_third_of_its_time_is_left() -> None:
    about = About("h1", "https://c", NOW, NOW + 90 * DAY_S)
    assert not is_due(about, NOW + 59 * DAY_S)
    assert is_due(about, NOW + 61 * DAY_S)
    assert not is_due(About("h1", "https://c"), NOW + 61 * DAY_S)


# against a real controller, over real sockets


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("join") / "ca"
    authority.create(directory, time.time(), days=100, permitted=())
    authority.issue_controller(directory, [], [], time.time(), days=90)
    return directory


@pytest.fixture(scope="module")
def running(ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("site"), "--ca", str(ca)) as made:
        yield made


def join_token(site: Secured, ca: Path, host: str, *options: str) -> str:
    made = kvnet("--controller", site.url, "--ca-file", str(ca / "ca.pem"), "host", "join-token", host, *options,
                 KVNET_TOKEN=site.token)  # fmt: skip
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def fingerprint(ca: Path) -> str:
    return authority.load(ca).fingerprint


def wish(site: Secured, ca: Path, token: str, state: Path, **more: object) -> Wish:
    return replace(Wish(site.url, token, state, pinned=fingerprint(ca)), **more)  # type: ignore[arg-type]


async def who(found: identity.Identity, *, token: bool = True, certificate: bool = True) -> dict[str, object]:
    trust = found.trust if certificate else Trust(found.trust.ca)
    async with Client(found.about.controller, token=found.token if token else "", trust=trust, attempts=1) as client:
        return await client.whoami()


async def test_a_host_joins_and_is_itself_with_both_or_its_certificate_and_not_with_its_token_alone(
    running: Secured, ca: Path, tmp_path: Path
) -> None:
    found = await join(wish(running, ca, join_token(running, ca, "h1"), tmp_path), time.time)

    assert (await who(found))["name"] == "host:h1"
    assert (await who(found, token=False))["via"] == "certificate"
    with pytest.raises(Unauthenticated):
        await who(found, certificate=False)
    with pytest.raises(AlreadyJoined):
        await join(wish(running, ca, join_token(running, ca, "h1"), tmp_path), time.time)

    async with Client(running.url, token=running.token, trust=Trust(str(ca / "ca.pem"))) as admin:
        token = next(one for one in await admin.tokens() if one["host"] == "h1" and one["role"] == "host")
        await admin.delete_token(token["id"])
    with pytest.raises(Unauthenticated):
        await who(found, token=False)


async def test_joining_is_refused_to_who_is_not_the_pinned_ca(running: Secured, ca: Path, tmp_path: Path) -> None:
    token = join_token(running, ca, "h2")
    with pytest.raises(ControllerUntrusted, match="not the one that was named"):
        await join(wish(running, ca, token, tmp_path, pinned="0" * 64), time.time)
    assert (await join(wish(running, ca, token, tmp_path), time.time)).about.host == "h2", "it was not sent"


async def test_a_host_joins_with_a_certificate_of_its_own(running: Secured, ca: Path, tmp_path: Path) -> None:
    places, _ = authority.issue_host(ca, "h3", time.time(), days=30)
    own = Trust(str(ca / "ca.pem"), str(places.certificate), str(places.key))

    found = await join(wish(running, ca, join_token(running, ca, "h3"), tmp_path, trust=own, pinned=""), time.time)

    assert (await who(found, token=False))["name"] == "host:h3"


async def test_the_same_join_token_again_after_a_crash_is_the_same_identity(
    running: Secured, ca: Path, tmp_path: Path
) -> None:
    """The answer came to a process that died before it could keep it."""
    token = join_token(running, ca, "h4")
    first = await join(wish(running, ca, token, tmp_path), time.time)
    pending = {"id": first.token.split("_")[1], "secret": first.token.split("_", 2)[2], **make(None)._asdict()}
    for name in first.directory.iterdir():
        name.unlink()
    first.directory.rmdir()
    (tmp_path / identity.PENDING).write_text(json.dumps(pending))

    again = await join(wish(running, ca, token, tmp_path), time.time)

    assert again.token == first.token
    assert (await who(again))["name"] == "host:h4"


async def test_a_worker_renews_its_certificate_in_time_and_shows_the_new_one(
    running: Secured, ca: Path, tmp_path: Path
) -> None:
    found = await join(wish(running, ca, join_token(running, ca, "h5"), tmp_path), time.time)
    before = (found.directory / identity.CERTIFICATE).read_text()
    controller = HttpController(running.url, token=found.token, trust=found.trust, time=Time())
    due = replace(
        found, about=replace(found.about, certified_at=time.time() - 89 * DAY_S, expires_at=time.time() + DAY_S)
    )

    async def made() -> Request:
        return await made_apart(found.directory / identity.KEY)

    renewal = Renewal(due, controller, made, lambda: controller.show(found.trust), time=Time(), log=Log())
    try:
        await renewal.once()
        after = (found.directory / identity.CERTIFICATE).read_text()
        assert after != before
        kept = identity.load(tmp_path)
        assert kept is not None
        assert kept.about.expires_at > time.time() + 80 * DAY_S
        assert (await who(kept, token=False))["name"] == "host:h5"
        assert await renewal.once() > 600, "it is not due any more"
    finally:
        await controller.close()


def test_from_the_command_line_the_secret_is_in_no_argument_and_the_token_file_is_gone(
    running: Secured, ca: Path, tmp_path: Path
) -> None:
    file, state = tmp_path / "h6.token", tmp_path / "state"
    file.write_text(join_token(running, ca, "h6"))

    done = kvnet("worker", "join", "--controller", running.url, "--token-file", str(file), "--host", "h6",
                 "--ca-fingerprint", f"sha256:{fingerprint(ca)}", "--state-dir", str(state), "-o", "json")  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["certificate"] is True
    assert not file.exists()
    assert [place.stat().st_mode & 0o777 for place in (state, state / "identity")] == [0o700, 0o700]
    assert identity.load(state) is not None
    assert not [one for one in state.iterdir() if one.name.startswith(identity.PENDING)]
