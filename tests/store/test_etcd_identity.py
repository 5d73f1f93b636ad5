"""When another etcd cluster is taken for ours, and when it is a mistake."""

from __future__ import annotations

import pytest

from backends.etcd_identity import RECENT_S, SILENT_S, Foreign, Identity
from tests.store.clock import VirtualClock

OLD, NEW, THIRD = 0xA, 0xB, 0xC


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def identity(clock: VirtualClock) -> Identity:
    """Of three endpoints; the first one answered."""
    identity = Identity(3, clock)
    identity.require("e1", OLD)
    return identity


def refused(identity: Identity, endpoint: str, found: int) -> None:
    with pytest.raises(Foreign, match=endpoint):
        identity.require(endpoint, found)


def test_one_endpoint_of_another_cluster_is_refused_for_ever(identity: Identity, clock: VirtualClock) -> None:
    for _ in range(20):
        clock.now += SILENT_S - 1
        identity.require("e1", OLD)
        refused(identity, "e3", NEW)
    assert identity.id == OLD


def test_nor_is_it_taken_when_the_good_ones_are_away(identity: Identity, clock: VirtualClock) -> None:
    for _ in range(20):
        clock.now += SILENT_S
        refused(identity, "e3", NEW)
    assert identity.id == OLD


def test_a_new_cluster_is_taken_when_the_old_one_is_silent_and_most_endpoints_agree(
    identity: Identity, clock: VirtualClock
) -> None:
    clock.now += SILENT_S
    refused(identity, "e3", NEW)
    refused(identity, "e2", NEW)  # what was asked there was meant for the old one
    assert identity.id == NEW
    identity.require("e2", NEW)
    refused(identity, "e1", OLD)


def test_not_while_the_old_one_was_heard_of_lately(identity: Identity, clock: VirtualClock) -> None:
    clock.now += SILENT_S - 1
    for endpoint in ("e1", "e2", "e3"):
        refused(identity, endpoint, NEW)
    assert identity.id == OLD


def test_not_while_the_endpoints_disagree(identity: Identity, clock: VirtualClock) -> None:
    clock.now += SILENT_S
    refused(identity, "e1", THIRD)
    refused(identity, "e2", NEW)
    refused(identity, "e3", NEW)
    assert identity.id == OLD
    clock.now += RECENT_S  # the third is not heard of any more
    refused(identity, "e2", NEW)
    refused(identity, "e3", NEW)
    assert identity.id == NEW
