"""Everything that can go wrong, one class per case: what happened, why, and what to do next.

The API renders them as RFC 9457 problems, the CLI as two lines and an exit code, tests match on `code`.
Never raise a bare `KvnetError`; never reword a detail somewhere else than here or at the raise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with a request. `pointer` is a JSON pointer (RFC 6901) into its body."""

    pointer: str
    detail: str


class KvnetError(Exception):
    """Base of all errors a user can meet.

    Attributes:
        code: stable, kebab-case; part of the API.
        status: the HTTP status it is reported with.
        detail: what happened and why, one or two sentences.
        fix: what to do next ("" where nothing can be done).
        errors: per field, for bad input.
        context: more machine-readable facts (plain JSON), shown as members of the problem.
        request_id: of the request that failed, where it came over the wire.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"

    def __init__(
        self,
        detail: str,
        *,
        fix: str = "",
        errors: Sequence[FieldError] = (),
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fix = fix
        self.errors = tuple(errors)
        self.context: Mapping[str, Any] = dict(context or {})
        self.request_id = ""


class Invalid(KvnetError):
    """The request itself is wrong; nothing was looked up, nothing was changed."""

    code = "invalid"
    status = 422
    title = "The request is not valid"

    @classmethod
    def field(cls, pointer: str, detail: str, fix: str = "") -> Self:
        return cls(detail, fix=fix, errors=(FieldError(pointer, detail),))


class NotFound(KvnetError):
    code = "not-found"
    status = 404
    title = "There is no such thing"


class NotSupported(KvnetError):
    """Known to kvnet, but not built (yet). Said at the edge, before anything changes."""

    code = "not-supported"
    status = 422
    title = "Not supported"


class Conflicting(KvnetError):
    """Base of the 409s: the request is fine, the state of the world is against it."""

    code = "conflict"
    status = 409
    title = "It conflicts with what is there"


class NameTaken(Conflicting):
    code = "name-taken"
    title = "The name is taken"


class AmbiguousName(Conflicting):
    code = "ambiguous-name"
    title = "The name stands for more than one thing"


class SubnetTaken(Conflicting):
    """A wanted subnet overlaps a network, a reservation, or something a host uses."""

    code = "subnet-taken"
    title = "The subnet is in use"


class SubnetsExhausted(Conflicting):
    """No free subnet of the wanted size. `context` says what blocked each candidate and the largest free block."""

    code = "subnets-exhausted"
    title = "No free subnet"


class AddressTaken(Conflicting):
    code = "address-taken"
    title = "The address is in use"


class AddressesExhausted(Conflicting):
    code = "addresses-exhausted"
    title = "No free address"


class VniTaken(Conflicting):
    code = "vni-taken"
    title = "The VNI is in use"


class BridgeTaken(Conflicting):
    """Another network's bridge has the name that was asked for."""

    code = "bridge-name-taken"
    title = "Bridge name is taken"


class PortTaken(Conflicting):
    """A host port is another endpoint's, or a program on the host listens there; says whose it is."""

    code = "port-taken"
    title = "Host port is taken"


class PortsExhausted(Conflicting):
    code = "ports-exhausted"
    title = "No free host port"


class BlockTaken(Conflicting):
    """An address of a routed network that was asked for is in another host's block."""

    code = "block-taken"
    title = "Address is in another host's block"


class BlocksExhausted(Conflicting):
    """A routed network has no block left for a host."""

    code = "blocks-exhausted"
    title = "No free block"


class HostsApart(Conflicting):
    """A routed network without tunnels cannot have endpoints on hosts that are behind a router from each other."""

    code = "hosts-apart"
    title = "Hosts are on different segments"


class Immutable(Conflicting):
    """What was to be changed cannot change while the network, or the endpoint, lives; says why for each field."""

    code = "immutable"
    title = "Cannot be changed"


class NetworkInUse(Conflicting):
    """A network with endpoints cannot be deleted; names each endpoint, its host, and when that was last seen."""

    code = "network-in-use"
    title = "The network is in use"


class NetworkDeleting(Conflicting):
    code = "network-deleting"
    title = "The network is being deleted"


class NetworkNaming(Conflicting):
    """Docker is making the network and has not told its name yet; until then nothing can join or change it."""

    code = "network-naming"
    title = "The network has no name yet"


class NetworkNamed(Conflicting):
    """A network is named once; `context` has the name that it has."""

    code = "network-named"
    title = "The network has a name already"


class HoldGone(Conflicting):
    """A subnet is held for a minute. This one was released, ran out, or was never held."""

    code = "hold-gone"
    title = "The subnet is no longer held"


class HoldMismatch(Conflicting):
    """What was held is not what the network asks for: another subnet, or for another host."""

    code = "hold-mismatch"
    title = "The hold is for something else"


class IdTaken(Conflicting):
    """An id the caller chose belongs to something else than what it asks for now."""

    code = "id-taken"
    title = "The id is taken"


class AlreadyAttached(Conflicting):
    """This namespace has that attachment already; `context` names it."""

    code = "already-attached"
    title = "It is attached already"


class HostInUse(Conflicting):
    code = "host-in-use"
    title = "The host still carries endpoints"


class PoolInUse(Conflicting):
    code = "pool-in-use"
    title = "The pool is in use"


class PreconditionFailed(KvnetError):
    """If-Match did not match: somebody changed it since. `context["version"]` is the current version."""

    code = "precondition-failed"
    status = 412
    title = "It changed since you looked"


class TooMuchContention(Conflicting):
    """Lost the race more often than the bound allows. Safe to repeat."""

    code = "contention"
    status = 503
    title = "Too many writers at once"


class StoreUnavailable(KvnetError):
    code = "store-unavailable"
    status = 503
    title = "The store does not answer"


class OutcomeUnknown(KvnetError):
    """The store's answer was lost: it may or may not have been written. Repeat with the same id."""

    code = "outcome-unknown"
    status = 504
    title = "The outcome is not known"


class StoreBroken(KvnetError):
    """The store answers, but cannot serve: read-only, full, not a database, wrong schema, another cluster's data."""

    code = "store-broken"
    status = 503
    title = "The store cannot be used"


class StoreLoginRefused(KvnetError):
    """The store does not know these credentials: wrong password, unknown user, expired or unknown token."""

    code = "store-login-refused"
    status = 503
    title = "The store does not accept the credentials"


class StoreForbidden(KvnetError):
    """The store knows who asks and does not let them read and write under the root."""

    code = "store-forbidden"
    status = 503
    title = "The store does not allow it"


class StoreUntrusted(KvnetError):
    """TLS: the store's certificate is not signed by the CA given, or names another host, or ours is not accepted."""

    code = "store-untrusted"
    status = 503
    title = "The store cannot be trusted"


class StoreForeign(KvnetError):
    """Under the root there is something, and it is not kvnet's. Nothing is written beside it."""

    code = "store-foreign"
    status = 503
    title = "The root holds somebody else's data"


class StoreTooNew(KvnetError):
    """Written by a newer kvnet."""

    code = "store-too-new"
    status = 503
    title = "The store was written by a newer kvnet"


class UpgradeUnfinished(KvnetError):
    """Somebody who takes part does not speak the new schema yet."""

    code = "upgrade-unfinished"
    status = 409
    title = "The upgrade is not finished everywhere"


class AnotherCluster(KvnetError):
    """The store answers, and is not the one that was meant."""

    code = "another-cluster"
    status = 503
    title = "The store is another cluster's"


class StoreWentBack(KvnetError):
    """The store is older than what was seen of it: wiped, or restored from a backup. Refused until confirmed."""

    code = "store-went-back"
    status = 503
    title = "The store went back in time"


class StoreNotEmpty(Conflicting):
    """A restore's target holds something already. Nothing was changed."""

    code = "store-not-empty"
    title = "The store is not empty"


class BackupUnusable(KvnetError):
    """A backup that is damaged, cut off, not a backup, or of a newer kvnet. Nothing was changed."""

    code = "backup-unusable"
    title = "The backup cannot be used"


class ControllerUnreachable(KvnetError):
    code = "controller-unreachable"
    status = 503
    title = "The controller does not answer"


class ControllerUntrusted(ControllerUnreachable):
    """There is a controller, but no safe way to it: its certificate, ours, or TLS on one side only."""

    code = "controller-untrusted"
    title = "There is no safe connection to the controller"


class CertificateUnusable(KvnetError):
    """A certificate or a key in a file cannot be used. Nothing was started or sent."""

    code = "certificate-unusable"
    status = 422
    title = "A certificate cannot be used"


class AlreadyJoined(Conflicting):
    """This host has an identity, or the cluster has one for it."""

    code = "already-joined"
    title = "The host has joined already"


class WorkerUnreachable(KvnetError):
    code = "worker-unreachable"
    status = 503
    title = "The worker does not answer"


class HostSilent(KvnetError):
    """A host's worker was asked something and did not answer; `context` says whether it is alive and since when."""

    code = "host-silent"
    status = 504
    title = "The host does not answer"


class HostBusy(KvnetError):
    """A host answers only so many questions of a kind at once, and others have been waiting for their turn."""

    code = "host-busy"
    status = 503
    title = "The host is busy"


class ProbeBusy(Conflicting):
    """A host takes part in one connectivity test at a time."""

    code = "probe-busy"
    title = "A connectivity test is under way"


class AnswerTooLarge(KvnetError):
    """What a worker would answer does not fit into one value of the store."""

    code = "answer-too-large"
    status = 507
    title = "The answer is too large"


class UnexpectedAnswer(KvnetError):
    """The controller answered without something that this command needs: it is of another version, or has a bug."""

    code = "unexpected-answer"
    status = 502
    title = "The controller answered something unexpected"


class HostFenced(KvnetError):
    """This host lost its session: it claims nothing until it has seen the current state again."""

    code = "host-fenced"
    status = 503
    title = "This host is fenced"


class ForeignObject(Conflicting):
    """A kernel object that is not ours holds a name or VNI that we need. It is never touched."""

    code = "foreign-object"
    title = "Something that is not kvnet's is in the way"


class MissingCapability(KvnetError):
    code = "missing-capability"
    status = 403
    title = "The process may not do this"


class KernelRefused(KvnetError):
    """The kernel refused an operation on our own objects; the detail carries its words."""

    code = "kernel-refused"
    title = "The kernel refused"


class NamespaceNotFound(NotFound):
    code = "namespace-not-found"
    title = "There is no such network namespace"


class PortInUse(KvnetError):
    """The listen address is taken by another process."""

    code = "listen-address-in-use"
    status = 409
    title = "The listen address is in use"


class StateUnusable(KvnetError):
    """The worker's state directory cannot be used: not writable, full, or another worker has it."""

    code = "state-unusable"
    title = "The state directory cannot be used"


class Unfit(KvnetError):
    """This machine lacks something that is needed; says what and how to get it."""

    code = "unfit-machine"
    title = "This machine lacks something"


class Gone(KvnetError):
    """A cursor or event position is older than what is kept: start again from a fresh list."""

    code = "gone"
    status = 410
    title = "Too old"


class Unauthenticated(KvnetError):
    """No credential, or one that is not good: unknown, expired, removed. Never says which."""

    code = "unauthenticated"
    status = 401
    title = "Who asks is not known"


class Forbidden(KvnetError):
    """Who asks is known, and may not do this."""

    code = "forbidden"
    status = 403
    title = "The credential does not allow it"


class AuthenticationRequired(KvnetError):
    """The cluster has no credentials yet, so only those on the controller's own machine are heard."""

    code = "authentication-required"
    status = 403
    title = "Only the controller's own machine may ask"


class RateLimited(KvnetError):
    """More requests than the token may make; `retry_after_s` says when the next one is welcome."""

    code = "rate-limited"
    status = 429
    title = "Too many requests"


class TooManyFailures(KvnetError):
    """Wrong credentials from one address, again and again. Good ones from there are still served."""

    code = "too-many-failures"
    status = 429
    title = "Too many wrong credentials"


class TooManyStreams(KvnetError):
    """So many event streams and watches are open that there is no room for one more."""

    code = "too-many-streams"
    status = 429
    title = "Too many open streams"


class QuotaExceeded(Conflicting):
    """The token owns as much as it may."""

    code = "quota-exceeded"
    title = "The token's quota is used up"


class LastAdmin(Conflicting):
    """Without it nobody could make tokens any more."""

    code = "last-admin"
    title = "It is the last token of an admin"


class InsecureListen(KvnetError):
    """A controller would be open to everybody who reaches its address."""

    code = "insecure-listen"
    status = 422
    title = "The address is open to all"
