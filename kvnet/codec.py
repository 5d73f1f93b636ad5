"""Model <-> bytes: compact JSON with a schema version, so that any language and `etcdctl get` can read it.

Unknown fields are ignored (a newer kvnet may have written them); a newer schema number is refused, never guessed at.
A field that came with schema n says so (`field(metadata={"schema": n})`), and the number in front of a value is that of
its newest field: who knows all of a value's fields can read it, whatever else has changed meanwhile.
A value that is not exactly of its field's type is refused too, NaN and half a surrogate pair among them: whoever reads
objects from here need not ask again, and what somebody else wrote into the store ends as one StoreBroken.
What a request changed may bear its stamp: which request it was. That is of the envelope and not of the object: objects
are equal whoever wrote them, and readers that know no stamps ignore it.
The converters are derived once per class from its type hints; there is no second description of a model.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum, StrEnum
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from math import isfinite
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from kvnet.addresses import parse, text_of
from kvnet.errors import Invalid, StoreBroken
from kvnet.model import Address, Cidr
from kvnet.rules import shown

SCHEMA = 1
SINCE = "schema"
MAX_INTEGER = 2**63
MAX_DEPTH = 64  # of free JSON in a value; what parses deeper could not be written again
T = TypeVar("T")
Convert = Callable[[Any], Any]

_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode
_MISFITS = (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError, Invalid)
_quoted = json.encoder.encode_basestring
_ADDRESSES = {IPv4Address, IPv6Address}
_CIDRS = {IPv4Network, IPv6Network}
_HEAD = re.compile(rb'\{"v":(\d{1,4}),(?!"request_id":")')
_STAMP = re.compile(
    rb'(\{"v":\d{1,4},)"request_id":"([A-Za-z0-9._:/=+-]{1,128})"(?:,"traceparent":"([0-9a-f-]{55})")?,'
)
_SCHEMA = re.compile(rb'\{"v":(\d{1,4})[,}]')
_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/=+-]{0,127}\Z")
_SANE_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


class Stamp(NamedTuple):
    """The request that wrote a stored value last; `trace` is its W3C traceparent, "" if it was not traced."""

    request_id: str
    trace: str = ""


def encode(value: Any) -> bytes:
    """The stored form of a model object: `{"v":1,` (the schema of its newest field) and then what `to_json` has."""
    template, values_of, writers = _template(_hashable(type(value)))
    return (template % tuple([write(v) for write, v in zip(writers, values_of(value), strict=True)])).encode()


def decode(cls: type[T], data: bytes) -> T:
    """The object that `encode` wrote.

    Raises:
        StoreBroken: not ours, damaged, or written by a newer schema.
    """
    try:
        plain = _parsed(data)
        schema = plain["v"]
        if type(schema) is not int:
            raise TypeError(f"its schema is a {type(schema).__name__}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreBroken(
            f"a stored {cls.__name__} cannot be read: {error!r}", fix="see 'kvnet check'; something else writes here"
        ) from error
    if schema > SCHEMA:
        raise StoreBroken(
            f"a stored {cls.__name__} has schema {schema}, this kvnet knows up to {SCHEMA}", fix="upgrade this kvnet"
        )
    return from_json(cls, plain)


def stamped(data: bytes, request_id: str, trace: str = "") -> bytes:
    """What `encode` wrote, with the request that wrote it; as it is if that has no id that could go there."""
    head = _HEAD.match(data)
    if head is None or not is_request_id(request_id):
        return data
    more = f',"traceparent":"{trace}"' if trace and _SANE_TRACE.match(trace) else ""
    return b'%b"request_id":"%b"%b,%b' % (head[0], request_id.encode(), more.encode(), data[head.end() :])


def stamp_of(data: bytes) -> Stamp | None:
    """Which request wrote it; None if it bears no stamp. Costs no parsing."""
    found = _STAMP.match(data)
    return None if found is None else Stamp(found[2].decode(), (found[3] or b"").decode())


def unstamped(data: bytes) -> bytes:
    """As `encode` wrote it."""
    found = _STAMP.match(data)
    return data if found is None else found[1] + data[found.end() :]


def schema_of(data: bytes) -> int:
    """The schema that a value was written with; 0 if it is none of ours. Costs no parsing."""
    found = _SCHEMA.match(data)
    return int(found[1]) if found else 0


def lowered(cls: type[Any], data: bytes, level: int) -> bytes:
    """The same value for readers that know no more than schema `level`: without the fields that came later."""
    plain = _parsed(data)
    plain["v"] = _strip(cls, plain, level)
    return _dumps(plain).encode()


def _strip(cls: type[Any], plain: dict[str, Any], level: int) -> int:
    """Takes the later fields out, and tells the schema of the newest that is left."""
    schema, hints = 1, typing.get_type_hints(cls)
    for one in fields(cls):
        since = int(one.metadata.get(SINCE, 1))
        if since > level:
            plain.pop(one.name, None)
            continue
        inner = _models_in(hints[one.name])
        found = plain.get(one.name)
        if isinstance(found, dict) and _is_mapping(hints[one.name]):
            found = list(found.values())
        parts = found if isinstance(found, list) else [found]
        nested = [_strip(inner[0], part, level) for part in parts if inner and isinstance(part, dict)]
        schema = max(schema, since, *nested)
    return schema


def is_request_id(text: str) -> bool:
    """Whether it can go into stored values, headers and log lines without being quoted."""
    return _SANE_ID.match(text) is not None


def to_json(value: Any) -> dict[str, Any]:
    """A model object as plain JSON data; defaults are written too, so that readers need not know them."""
    return {name: out(getattr(value, name)) for name, out, _ in _converters(_hashable(type(value)))}


def from_json(cls: type[T], plain: Mapping[str, Any]) -> T:
    """Raises: StoreBroken if a field is missing, of the wrong kind, or against the model's rules."""
    readers = _readers(_hashable(cls))
    try:
        given = {}
        for name, passing, into in readers:
            if name in plain:
                value = plain[name]
                given[name] = value if type(value) is passing else into(value)
        return cls(**given)
    except _MISFITS as error:
        raise StoreBroken(f"a stored {cls.__name__} cannot be read: {error}", fix="see 'kvnet check'") from error


def _models_in(hint: Any) -> list[type[Any]]:
    """The model that a field holds: itself, or None of it, or many of it."""
    if is_dataclass(hint):
        return [typing.cast(type[Any], hint)]
    return [model for argument in typing.get_args(hint) for model in _models_in(argument)]


def _is_mapping(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


@cache
def _newest(model: Hashable) -> int:
    """The schema of the newest field in it."""
    cls = typing.cast(type[Any], model)
    hints = typing.get_type_hints(cls)
    inner = [_newest(_hashable(one)) for name in hints for one in _models_in(hints[name])]
    return max([1, *(int(one.metadata.get(SINCE, 1)) for one in fields(cls)), *inner])


def _hashable(cls: type[Any]) -> Hashable:
    """Type checkers mistake a class's own `__hash__` for that of its instances."""
    return typing.cast(Hashable, cls)


@cache
def _converters(model: Hashable) -> tuple[tuple[str, Convert, Convert], ...]:
    cls = typing.cast(type[Any], model)
    hints = typing.get_type_hints(cls)
    return tuple((f.name, *_converter(hints[f.name])) for f in fields(cls))


@cache
def _readers(model: Hashable) -> tuple[tuple[str, type | None, Convert], ...]:
    """Of each field its name, the type that is taken as it is, and what reads all else."""
    hints = typing.get_type_hints(typing.cast(type[Any], model))
    return tuple((name, _passing(hints[name]), into) for name, _, into in _converters(model))


def _passing(hint: Any) -> type | None:
    if hint in (str, bool):
        return typing.cast(type, hint)
    is_optional = typing.get_origin(hint) in (typing.Union, types.UnionType) and type(None) in typing.get_args(hint)
    return type(None) if is_optional else None


@cache
def _template(model: Hashable) -> tuple[str, Convert, tuple[Convert, ...]]:
    """The JSON text of a class with a gap for each field, what reads all fields at once, and what writes each.

    Twice as fast as a dict through the JSON encoder; thousands of endpoints a second pass here.
    """
    cls = typing.cast(type[Any], model)
    hints = typing.get_type_hints(cls)
    names = [f.name for f in fields(cls)]
    gaps = "".join(f',"{name}":%s' for name in names)
    read = attrgetter(*names)
    read_all = read if len(names) > 1 else lambda value: (read(value),)
    return f'{{"v":{_newest(model)}{gaps}}}', read_all, tuple(_writer(hints[name]) for name in names)


def _writer(hint: Any) -> Convert:
    """To JSON text, for a type hint of the model. By hand only what costs time: the rest goes through `_converter`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    inner = [a for a in arguments if a is not type(None)]
    if hint is str:
        return _quoted
    if hint is int:
        return lambda v: int.__repr__(v) if type(v) is int else _dumps(v)
    if hint is float:
        return lambda v: float.__repr__(v) if type(v) is float and isfinite(v) else _dumps(v)
    if set(inner) == _ADDRESSES and len(inner) == len(arguments):
        return lambda v: f'"{text_of(v)}"'
    if origin in (typing.Union, types.UnionType) and len(inner) == 1:
        write = _writer(inner[0])
        return lambda v: "null" if v is None else write(v)
    if origin is tuple:
        write = _writer(arguments[0])
        return lambda v: f"[{','.join([write(x) for x in v])}]" if v else "[]"
    out, _ = _converter(hint)
    if origin is not None and issubclass(origin, Mapping):
        return lambda v: _dumps(out(v)) if v else "{}"
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return lambda v: _quoted(v.value)
    return lambda v: _dumps(out(v))


def _not_finite(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_not_finite)


def _parsed(data: bytes) -> Any:
    """JSON in UTF-8 that can be written again.

    Raises:
        ValueError, RecursionError
    """
    text = data.decode()  # json.loads would also take UTF-16, and half of a surrogate pair
    plain, end = _decoder.raw_decode(text)  # `decode` looks for white space as well, and we write none
    if end < len(text):
        plain = _decoder.decode(text)
    if "\\u" in text:
        _dumps(plain).encode()
    return plain


def _same(value: Any) -> Any:
    return value


def _text(value: Any) -> Any:
    if type(value) is str:
        return value
    raise TypeError(f"text was expected, not {_shown(value)}")


def _boolean(value: Any) -> Any:
    if value is True or value is False:
        return value
    raise TypeError(f"true or false was expected, not {_shown(value)}")


def _integer(value: Any) -> Any:
    if type(value) is int and -MAX_INTEGER <= value < MAX_INTEGER:
        return value
    raise TypeError(f"a whole number of 64 bits was expected, not {_shown(value)}")


def _number(value: Any) -> Any:
    kind = type(value)
    if (kind is float and isfinite(value)) or (kind is int and -MAX_INTEGER <= value < MAX_INTEGER):
        return value
    raise TypeError(f"a number was expected, not {_shown(value)}")


def _list(value: Any) -> Any:
    if type(value) is list:
        return value
    raise TypeError(f"a list was expected, not {_shown(value)}")


def _object(value: Any) -> Any:
    if type(value) is dict:
        return value
    raise TypeError(f"an object was expected, not {_shown(value)}")


def _free(value: Any, left: int = MAX_DEPTH) -> Any:
    if not left:
        raise ValueError(f"more than {MAX_DEPTH} levels deep")
    if type(value) is dict:
        for inner in value.values():
            _free(inner, left - 1)
    elif type(value) is list:
        for inner in value:
            _free(inner, left - 1)
    return value


def _shown(value: Any) -> str:
    return shown(value) if type(value) is str else type(value).__name__


def _address(value: Any) -> Address:
    """Without a scope: `fe80::1%eth0` means something on one host only, and its scope may be any text."""
    address = parse(_text(value))
    if address.version == 6 and address.scope_id is not None:
        raise ValueError(f"{shown(value)} has a scope")
    return address


def _cidr(value: Any) -> Cidr:
    if "%" in _text(value):
        raise ValueError(f"{shown(value)} has a scope")
    return ip_network(value)


def _converter(hint: Any) -> tuple[Convert, Convert]:
    """(to plain, from plain) for a type hint of the model."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        out, into = _union(inner)
        if len(inner) == len(arguments):
            return out, into
        writes = _same if out is _same else lambda v: None if v is None else out(v)
        return writes, lambda v: None if v is None else into(v)
    if origin is tuple:
        out, into = _converter(arguments[0])
        writes = list if out is _same else lambda v: [out(x) for x in v]
        return writes, lambda v: () if v == [] else tuple([into(x) for x in _list(v)])
    if origin is not None and issubclass(origin, Mapping):
        out, into = _converter(arguments[1])
        writes = dict if out is _same else lambda v: {k: out(x) for k, x in v.items()}
        return writes, lambda v: {} if v == {} else {k: into(x) for k, x in _object(v).items()}
    return _scalar(hint)


def _union(inner: list[Any]) -> tuple[Convert, Convert]:
    if len(inner) == 1:
        return _converter(inner[0])
    if set(inner) == _ADDRESSES:
        return str, _address
    if set(inner) == _CIDRS:
        return str, _cidr
    raise TypeError(f"no converter for a union of {inner}")


def _scalar(hint: Any) -> tuple[Convert, Convert]:
    if hint in _ADDRESSES | _CIDRS:
        return str, lambda v: hint(_text(v))
    if is_dataclass(hint):
        cls = typing.cast(type[Any], hint)
        return to_json, lambda v: from_json(cls, _object(v))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return (lambda v: v.value), lambda v: hint(_text(v))
    return _same, _EXACT.get(hint, _free)


_EXACT: Mapping[Any, Convert] = {str: _text, bool: _boolean, int: _integer, float: _number, Any: _free}
