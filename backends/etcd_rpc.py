"""Requests to an etcd cluster, whichever of its members serves: fail-over, login, and whose answers are believed.

A request goes to one endpoint until that one fails; then to the next. What surely was not done goes on to the next at
once, a read always does, a write whose outcome is not known never. Each connection is asked for its cluster's id before
it is used. Never logs, never shows a password or token, bounds every wait.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, TypeVar

from backends import etcd_wire as wire
from backends.etcd_errors import NOT_SENT, Failed, LoginRefused, Verdict, is_without_users, refusal
from backends.etcd_identity import Foreign, Identity
from backends.etcd_link import Link, Metadata, SingleFlight, Stream
from backends.etcd_wire import Answer, Message, Method
from backends.medium import CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S
from backends.store import Broken, Unavailable, Unknown
from backends.url import ServerUrl
from kvnet.errors import Invalid

if TYPE_CHECKING:
    import grpc

A = TypeVar("A", bound=Answer)

# A read that can be asked elsewhere waits no longer for a member that may be frozen.
IMPATIENT_S = REQUEST_TIMEOUT_S / 2
# After so long no further endpoint is tried.
PATIENCE_S = 2 * REQUEST_TIMEOUT_S
# A member that lost its leader says so at once, instead of letting the request wait for its timeout.
REQUIRE_LEADER = ("hasleader", "true")


class Cluster:
    """`cluster_id`: of whoever is believed; 0 before anybody answered. It changes when etcd was set up anew."""

    def __init__(self, url: ServerUrl, credentials: grpc.ChannelCredentials | None, rng: random.Random) -> None:
        self.links = [Link(endpoint, credentials, self._identify) for endpoint in url.endpoints]
        rng.shuffle(self.links)  # so that not all clients ask the same member
        self._identity = Identity(len(self.links), _now)
        self._url = url
        self._current = 0
        self._token = ""
        self._is_without_users = False
        self._log_in_once = SingleFlight(self._log_in)

    @property
    def cluster_id(self) -> int:
        return self._identity.id

    async def ask(self, method: Method[A], request: Message, *, is_repeatable: bool = True) -> A:
        """
        Raises:
            Unavailable: surely not done, by nobody.
            Unknown: not repeatable, and the answer was lost.
            Refused, Broken, Compacted, SessionLost, TooLarge: etcd said so; not done.
        """
        told: dict[str, str] = {}
        foreign = ""
        give_up_at = _now() + PATIENCE_S
        meant_for = self.cluster_id
        for nth, link in enumerate(self._order(), start=1):
            timeout_s = IMPATIENT_S if is_repeatable and nth < len(self.links) else REQUEST_TIMEOUT_S
            try:
                await link.reach()
                self._require_still(meant_for)
                return await self._ask(link, method, request, timeout_s)
            except Foreign as error:
                foreign = told[link.name] = str(error)
            except Failed as failed:
                if failed.verdict in (Verdict.FINAL, Verdict.LOGIN):
                    raise refusal(failed) from failed
                if failed.verdict is Verdict.LOST and not is_repeatable:
                    self.leave(link)
                    raise Unknown(f"etcd's answer was lost ({link.name}: {failed.details})") from failed
                told[link.name] = failed.details
            self.leave(link)
            if _now() > give_up_at:
                break
        if foreign:
            raise Broken(foreign)
        raise Unavailable(f"no etcd endpoint serves: {'; '.join(f'{name}: {why}' for name, why in told.items())}")

    async def open_stream(self, method: Method[A]) -> tuple[Link, Stream[A]]:
        """A stream on the first endpoint that is there.

        Raises:
            Unavailable, Refused, Broken: none is.
        """
        told: dict[str, str] = {}
        for link in self._order():
            try:
                await link.reach()
                await self._require_token()
                return link, link.stream(method, self._metadata())
            except (Foreign, Failed) as error:
                told[link.name] = str(error)
                self.leave(link)
        raise Unavailable(f"no etcd endpoint serves: {'; '.join(f'{name}: {why}' for name, why in told.items())}")

    def believe(self, link: Link, answer: A) -> A:
        """
        Raises:
            Foreign: the answer is another cluster's.
        """
        known = self.cluster_id
        try:
            self._identity.require(link.name, answer.header.cluster_id)
        except Foreign:
            link.is_checked = False
            if self.cluster_id != known:
                self.forget_token()  # it was the old cluster's
                for one in self.links:
                    one.is_checked = False
            raise
        return answer

    def _require_still(self, meant_for: int) -> None:
        """What was asked of one cluster is not sent to the one that took its place while it was under way.

        What is asked later is. That no commit decided on the old cluster is done in the new one is for its checks to
        see to: `EtcdMedium.commit`.
        """
        if meant_for not in (0, self.cluster_id):
            raise Unavailable("etcd was set up anew meanwhile; nothing was sent to the new cluster")

    def forget_token(self) -> None:
        self._token = ""
        self._is_without_users = False

    async def close(self) -> None:
        await self._log_in_once.stop()
        for link in self.links:
            await link.close()

    def _order(self) -> list[Link]:
        return self.links[self._current :] + self.links[: self._current]

    def leave(self, link: Link) -> None:
        """It did not serve: the next requests go elsewhere, and it is asked who it is before it is used again."""
        link.is_checked = False
        if self.links[self._current] is link:  # else another request has left it already
            self._current = (self._current + 1) % len(self.links)

    async def _ask(self, link: Link, method: Method[A], request: Message, timeout_s: float) -> A:
        """With a new login if the token is not good any more: then it was not done."""
        await self._require_token()
        used = self._token
        try:
            answer = await link.call(method, request, self._metadata(), timeout_s)
        except Failed as failed:
            if failed.verdict is not Verdict.LOGIN or not self._url.user:
                raise
            if self._token == used:
                self.forget_token()
            await self._require_token()
            answer = await link.call(method, request, self._metadata(), timeout_s)
        try:
            return self.believe(link, answer)
        except Foreign as error:
            # Too late: the connection was made anew within this very request.
            raise Failed("UNKNOWN", str(error)) from error

    def _metadata(self) -> Metadata:
        return (REQUIRE_LEADER, ("token", self._token)) if self._token else (REQUIRE_LEADER,)

    async def _require_token(self) -> None:
        if self._url.user and not self._token and not self._is_without_users:
            await self._log_in_once()

    async def _log_in(self) -> None:
        """
        Raises:
            Failed: nobody answered.
            LoginRefused: etcd does not accept the user or the password, or the password cannot be read.
        """
        try:
            password = await asyncio.to_thread(self._url.secret.read)
        except Invalid as error:
            raise LoginRefused(str(error)) from error
        failure = Failed(NOT_SENT, "there is nobody to log in with")
        for link in self._order():
            try:
                await link.reach()
                request = wire.authenticate(self._url.user, password)
                self._token = (await link.call(wire.AUTHENTICATE, request, (REQUIRE_LEADER,), REQUEST_TIMEOUT_S)).token
                return
            except Foreign as error:
                failure = Failed(NOT_SENT, str(error))
            except Failed as failed:
                if is_without_users(failed):
                    self._is_without_users = True
                    return
                if failed.verdict in (Verdict.FINAL, Verdict.LOGIN):
                    raise refusal(failed) from failed
                failure = failed
        # Whatever the login waits for was not sent.
        raise Failed(NOT_SENT, f"no login: {failure.details}")

    async def _identify(self, link: Link) -> None:
        """Who answers at a new connection? Needs no login (and where it does one day, the answers tell who it was)."""
        try:
            answer = await link.call(wire.STATUS, wire.status(), (), CONNECT_TIMEOUT_S)
        except Failed as failed:
            if failed.verdict in (Verdict.FINAL, Verdict.LOGIN):
                return
            raise Failed(NOT_SENT, f"it takes connections and does not answer: {failed.details}") from failed
        self.believe(link, answer)


def _now() -> float:
    return asyncio.get_running_loop().time()
