"""The few messages of etcd's v3 protocol that kvnet speaks, and how to say and read them with types.

Field names and numbers are those of etcd's rpc.proto and kv.proto (Apache-2.0, The etcd Authors), cut down to what is
used. They are made into protobuf classes in a descriptor pool of their own: generated modules would refuse an
older protobuf, and another etcd client in the process would collide with them in the default pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "etcdserverpb"

# message: field=number:type, `*` for repeated, `|` for a member of the oneof of that name. Enums travel as int32.
SCHEMA = """
ResponseHeader: cluster_id=1:uint64 member_id=2:uint64 revision=3:int64 raft_term=4:uint64
KeyValue: key=1:bytes create_revision=2:int64 mod_revision=3:int64 version=4:int64 value=5:bytes lease=6:int64
Event: type=1:int32 kv=2:KeyValue
RangeRequest: key=1:bytes range_end=2:bytes limit=3:int64 revision=4:int64 serializable=7:bool keys_only=8:bool \
 count_only=9:bool
RangeResponse: header=1:ResponseHeader kvs=2:*KeyValue more=3:bool count=4:int64
PutRequest: key=1:bytes value=2:bytes lease=3:int64
PutResponse: header=1:ResponseHeader
DeleteRangeRequest: key=1:bytes range_end=2:bytes
DeleteRangeResponse: header=1:ResponseHeader deleted=2:int64
RequestOp: request_range=1:RangeRequest|request request_put=2:PutRequest|request \
 request_delete_range=3:DeleteRangeRequest|request
ResponseOp: response_range=1:RangeResponse|response response_put=2:PutResponse|response \
 response_delete_range=3:DeleteRangeResponse|response
Compare: result=1:int32 target=2:int32 key=3:bytes mod_revision=6:int64|target_union
TxnRequest: compare=1:*Compare success=2:*RequestOp failure=3:*RequestOp
TxnResponse: header=1:ResponseHeader succeeded=2:bool responses=3:*ResponseOp
WatchCreateRequest: key=1:bytes range_end=2:bytes start_revision=3:int64
WatchProgressRequest:
WatchRequest: create_request=1:WatchCreateRequest|request_union progress_request=3:WatchProgressRequest|request_union
WatchResponse: header=1:ResponseHeader watch_id=2:int64 created=3:bool canceled=4:bool compact_revision=5:int64 \
 cancel_reason=6:string events=11:*Event
LeaseGrantRequest: TTL=1:int64 ID=2:int64
LeaseGrantResponse: header=1:ResponseHeader ID=2:int64 TTL=3:int64
LeaseRevokeRequest: ID=1:int64
LeaseRevokeResponse: header=1:ResponseHeader
LeaseKeepAliveRequest: ID=1:int64
LeaseKeepAliveResponse: header=1:ResponseHeader ID=2:int64 TTL=3:int64
AuthenticateRequest: name=1:string password=2:string
AuthenticateResponse: header=1:ResponseHeader token=2:string
StatusRequest:
StatusResponse: header=1:ResponseHeader version=2:string leader=4:uint64
"""

EQUAL, GREATER, LESS = 0, 1, 2
MOD_REVISION = 2
DELETED = 1  # Event.type; 0 is a put


def _field(message: descriptor_pb2.DescriptorProto, text: str) -> None:
    name, _, rest = text.partition("=")
    number, _, kind = rest.partition(":")
    kind, _, union = kind.partition("|")
    field = message.field.add(name=name, number=int(number))
    field.label = field.LABEL_REPEATED if kind.startswith("*") else field.LABEL_OPTIONAL
    kind = kind.removeprefix("*")
    if kind[0].isupper():
        field.type, field.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    if union:
        if not message.oneof_decl:
            message.oneof_decl.add(name=union)
        field.oneof_index = 0


def _make(schema: str) -> Mapping[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="kvnet/etcd.proto", package=PACKAGE, syntax="proto3")
    for line in schema.strip().splitlines():
        name, _, fields = line.partition(":")
        message = file.message_type.add(name=name)
        for text in fields.split():
            _field(message, text)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{message.name}"))
        for message in file.message_type
    }


_pb = _make(SCHEMA)


class Message(Protocol):
    """What is sent: made by the functions below, never read again."""

    def SerializeToString(self) -> bytes: ...


class Header(Protocol):
    cluster_id: int
    revision: int


class Answer(Protocol):
    """Every answer says whose it is."""

    @property
    def header(self) -> Header: ...


class KeyValue(Protocol):
    key: bytes
    value: bytes
    mod_revision: int


class RangeAnswer(Answer, Protocol):
    more: bool

    @property
    def kvs(self) -> Sequence[KeyValue]: ...


class OpAnswer(Protocol):
    @property
    def response_range(self) -> RangeAnswer: ...


class TxnAnswer(Answer, Protocol):
    succeeded: bool

    @property
    def responses(self) -> Sequence[OpAnswer]: ...


class Event(Protocol):
    type: int

    @property
    def kv(self) -> KeyValue: ...


class WatchAnswer(Answer, Protocol):
    created: bool
    canceled: bool
    compact_revision: int
    cancel_reason: str

    @property
    def events(self) -> Sequence[Event]: ...


class LeaseAnswer(Answer, Protocol):
    ID: int
    TTL: int


class LoginAnswer(Answer, Protocol):
    token: str


A_co = TypeVar("A_co", bound=Answer, covariant=True)


@dataclass(frozen=True, slots=True)
class Method(Generic[A_co]):
    """A remote procedure: its path, and how its answer is read."""

    path: str
    parse: Callable[[bytes], A_co]


def _method(service: str, name: str, answer: str) -> Method[Any]:
    return Method(f"/{PACKAGE}.{service}/{name}", _pb[answer].FromString)


RANGE: Method[RangeAnswer] = _method("KV", "Range", "RangeResponse")
TXN: Method[TxnAnswer] = _method("KV", "Txn", "TxnResponse")
WATCH: Method[WatchAnswer] = _method("Watch", "Watch", "WatchResponse")
GRANT: Method[LeaseAnswer] = _method("Lease", "LeaseGrant", "LeaseGrantResponse")
REVOKE: Method[Answer] = _method("Lease", "LeaseRevoke", "LeaseRevokeResponse")
KEEP_ALIVE: Method[LeaseAnswer] = _method("Lease", "LeaseKeepAlive", "LeaseKeepAliveResponse")
AUTHENTICATE: Method[LoginAnswer] = _method("Auth", "Authenticate", "AuthenticateResponse")
STATUS: Method[Answer] = _method("Maintenance", "Status", "StatusResponse")


def get_range(key: bytes, end: bytes = b"", *, limit: int = 0, revision: int = 0) -> Message:
    message: Message = _pb["RangeRequest"](key=key, range_end=end, limit=limit, revision=revision)
    return message


def only_header(key: bytes, *, revision: int = 0) -> Message:
    """A linearizable read that brings nothing but the header."""
    message: Message = _pb["RangeRequest"](key=key, count_only=True, revision=revision)
    return message


def get_op(key: bytes, end: bytes = b"", *, keys_only: bool = False, limit: int = 0) -> Message:
    message: Message = _pb["RequestOp"](
        request_range=_pb["RangeRequest"](key=key, range_end=end, keys_only=keys_only, limit=limit)
    )
    return message


def put_op(key: bytes, value: bytes, lease: int = 0) -> Message:
    message: Message = _pb["RequestOp"](request_put=_pb["PutRequest"](key=key, value=value, lease=lease))
    return message


def compare_version(key: bytes, result: int, revision: int) -> Message:
    """`mod_revision`, never `version`: that one starts at 1 again when a key is made anew."""
    message: Message = _pb["Compare"](key=key, target=MOD_REVISION, result=result, mod_revision=revision)
    return message


def txn(compare: Sequence[Message], success: Sequence[Message], failure: Sequence[Message]) -> Message:
    message: Message = _pb["TxnRequest"](compare=compare, success=success, failure=failure)
    return message


class Transaction:
    """As `txn`, put together in place: parts that are made first and then copied into it take three times as long."""

    def __init__(self) -> None:
        self._message = _pb["TxnRequest"]()
        self._compare = self._message.compare.add
        self._success = self._message.success.add

    def require_version(self, key: bytes, result: int, revision: int) -> None:
        """As `compare_version`."""
        self._compare(key=key, target=MOD_REVISION, result=result, mod_revision=revision)

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        put = self._success().request_put
        put.key, put.value = key, value
        if lease:
            put.lease = lease

    def delete(self, key: bytes) -> None:
        self._success().request_delete_range.key = key

    def SerializeToString(self) -> bytes:
        encoded: bytes = self._message.SerializeToString()
        return encoded


def create_watch(key: bytes, end: bytes, start_revision: int) -> Message:
    create = _pb["WatchCreateRequest"](key=key, range_end=end, start_revision=start_revision)
    message: Message = _pb["WatchRequest"](create_request=create)
    return message


def ask_for_progress() -> Message:
    message: Message = _pb["WatchRequest"](progress_request=_pb["WatchProgressRequest"]())
    return message


def grant(ttl_s: int) -> Message:
    message: Message = _pb["LeaseGrantRequest"](TTL=ttl_s)
    return message


def revoke(lease: int) -> Message:
    message: Message = _pb["LeaseRevokeRequest"](ID=lease)
    return message


def keep_alive(lease: int) -> Message:
    message: Message = _pb["LeaseKeepAliveRequest"](ID=lease)
    return message


def authenticate(user: str, password: str) -> Message:
    message: Message = _pb["AuthenticateRequest"](name=user, password=password)
    return message


def status() -> Message:
    message: Message = _pb["StatusRequest"]()
    return message
