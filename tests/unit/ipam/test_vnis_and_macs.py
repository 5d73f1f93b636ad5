"""VNIs and MACs are valid whatever the random numbers are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.ipam import vnis
from controller.ipam.macs import RANDOM_BYTES, mac_from
from controller.ipam.vnis import FIRST_VNI, choose_vni
from kvnet.errors import VniTaken
from kvnet.rules import VNI_MAX, require_mac


@given(st.sets(st.integers(FIRST_VNI, FIRST_VNI + 50)), st.integers(0, 2**32))
def test_a_vni_is_free_and_in_range_whatever_the_start(taken: set[int], start: int) -> None:
    vni = choose_vni(taken, start)
    assert vni not in taken
    assert FIRST_VNI <= vni <= VNI_MAX


def test_the_search_for_a_vni_wraps_at_the_end() -> None:
    assert choose_vni({VNI_MAX}, VNI_MAX - FIRST_VNI) == FIRST_VNI


def test_when_every_vni_is_taken_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vnis, "VNI_COUNT", 3)
    with pytest.raises(VniTaken, match="all 3 VNIs"):
        choose_vni(range(FIRST_VNI, FIRST_VNI + 3), 1)


@given(st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_a_mac_is_locally_administered_unicast_and_keeps_every_random_bit(random: bytes) -> None:
    mac = mac_from(random)
    require_mac(mac)
    assert mac.startswith("02:")
    assert bytes.fromhex(mac.replace(":", ""))[1:] == random


def test_too_few_random_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 random bytes"):
        mac_from(b"abc")
