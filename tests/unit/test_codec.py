"""What is stored: plain JSON that any reader understands, the same as `to_json` says, and readable again."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet import codec
from kvnet.addresses import parse, text_of
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.errors import StoreBroken
from kvnet.model import (
    Condition,
    Endpoint,
    Host,
    HostState,
    JournalChange,
    JournalEntry,
    Network,
    NetworkObserved,
    Observed,
    Pool,
    PublishedPort,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
printable = texts.filter(lambda text: text.isprintable())
names = st.from_regex(r"[a-z0-9]([a-z0-9_.-]{0,20}[a-z0-9])?", fullmatch=True)
seconds = st.one_of(st.floats(0, 1e11), st.integers(0, 10**11))
ipv4 = st.integers(0, 2**32 - 1).map(IPv4Address)
ipv6 = st.integers(0, 2**128 - 1).map(IPv6Address)
whole = st.integers(-(2**63), 2**63 - 1)
labels = st.dictionaries(printable.filter(bool), printable, max_size=3)
ports = st.builds(
    PublishedPort, st.integers(1, 65535), host_port=st.none() | st.integers(1, 65535), host_address=st.none() | ipv6
)
abilities = st.lists(texts, max_size=3).map(tuple)
conditions = st.builds(Condition, texts, texts, seconds)
plain = st.recursive(st.none() | st.booleans() | whole | texts, lambda inner: st.lists(inner, max_size=3))
models: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        Endpoint,
        id=names,
        network=texts,
        host=names,
        name=names,
        addresses=st.lists(ipv4 | ipv6, max_size=2).map(tuple),
        mac=st.just("02:00:5e:00:53:01"),
        created_at=seconds,
        hostname=st.just("") | names,
        aliases=st.lists(names, max_size=3).map(tuple),
        ports=st.lists(ports, max_size=2).map(tuple),
        labels=labels,
    ),
    st.builds(AddressClaim, st.sampled_from(ClaimKind), texts, seconds, st.none() | seconds, texts),
    st.builds(Host, names, ipv4 | ipv6, st.integers(576, 65535), abilities, st.sampled_from(HostState)),
    st.builds(
        Observed,
        texts,
        seconds,
        st.dictionaries(texts, st.builds(NetworkObserved, whole, st.lists(conditions).map(tuple)), max_size=2),
    ),
    st.builds(
        JournalEntry,
        seconds,
        texts,
        texts,
        texts,
        st.lists(st.builds(JournalChange, texts, texts, plain, plain), max_size=2).map(tuple),
    ),
)


@given(models)
def test_what_is_stored_is_compact_json_of_the_same_fields_and_reads_back(value: Any) -> None:
    data = codec.encode(value)

    plain_form = {"v": codec.SCHEMA, **codec.to_json(value)}
    assert data == json.dumps(plain_form, separators=(",", ":"), ensure_ascii=False).encode()
    assert codec.decode(type(value), data) == value


@pytest.mark.parametrize("data", [b"", b"nonsense", b"[]", b"{}", b'{"v":1}', b'{"v":99}', b'{"v":1,"kind":"fish"}'])
def test_what_is_not_ours_is_refused_and_never_guessed_at(data: bytes) -> None:
    with pytest.raises(StoreBroken):
        codec.decode(AddressClaim, data)


@pytest.mark.parametrize("model", [Network, Pool])
def test_fields_that_a_newer_version_wrote_are_ignored(model: type[Any]) -> None:
    data = b'{"v":1,"id":"abcdefabcdef","name":"n","driver":"overlay","subnets":[{"cidr":"10.1.0.0/24","new":1}],'
    data += b'"created_at":1.5,"cidr":"10.0.0.0/8","prefix_length":24,"from_the_future":true}'

    assert codec.decode(model, data).name == "n"


@given(ipv4 | ipv6)
def test_an_address_is_written_and_read_as_the_standard_library_does(address: IPv4Address | IPv6Address) -> None:
    assert text_of(address) == str(address)
    assert parse(text_of(address)) == address


NOT_ADDRESSES = ["", "10.1", "010.1.1.1", "1.2.3.4.5", "1.2.3.256", "1.2.3.4 ", "1.2.3.4\0", "fd00::g", "٣.1.1.1"]


@pytest.mark.parametrize("text", NOT_ADDRESSES)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"appear|hex"):
        parse(text)


request_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/=+-]{0,127}", fullmatch=True)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


# The journal's entries have the request as their own field, and no stamp.
@given(models.filter(lambda model: not isinstance(model, JournalEntry)), request_ids, st.sampled_from(["", TRACE]))
def test_a_stamp_says_which_request_wrote_a_value_and_leaves_the_object_as_it_is(
    model: Any, request_id: str, trace: str
) -> None:
    data = codec.encode(model)
    stamped = codec.stamped(data, request_id, trace)

    assert codec.stamp_of(stamped) == codec.Stamp(request_id, trace)
    assert codec.decode(type(model), stamped) == model
    assert codec.unstamped(stamped) == data
    assert json.loads(stamped)["request_id"] == request_id


@pytest.mark.parametrize("request_id", ["", " ", 'a"b', "a\\u0000", "-x", "x" * 129, "ü", "a\nb"])
def test_what_is_no_request_id_is_never_stamped(request_id: str) -> None:
    data = codec.encode(Host("h1", IPv4Address("10.0.0.1"), 1500))

    assert codec.stamped(data, request_id) == data
    assert codec.stamp_of(data) is None


def test_a_label_called_request_id_is_no_stamp() -> None:
    network = b'{"v":1,"labels":{"request_id":"x"}}'

    assert codec.stamp_of(network) is None
    assert codec.unstamped(network) == network
