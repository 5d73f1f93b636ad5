"""The chain over the journal, as pure functions: whatever is changed, removed, added or reordered is found."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from backends.store import Change, Entry
from controller import journal
from controller.audit.chain import Chain
from controller.audit.seal import BEGUN, Seal, digest, journal_in, sealed
from controller.audit.verify import Verdict, verify
from controller.journal import Changed
from controller.requests import Caller
from kvnet import codec, keys

HOUR = 3600.0


def entry(revision: int, what: str = "x", at: float | None = None) -> Entry:
    moment = 1_000_000.0 + revision if at is None else at
    note = journal.note(moment, Caller("alice", f"r{revision}", "192.0.2.1"), Changed(what, "pools/p", None, b"{}"))
    return Entry(keys.journal(moment, f"{revision:012x}"), b'{"v":1,"n":1,"entries":[%b]}' % note, revision)


def chain(written: list[Entry], bounds: list[int], trimmed: int = 0) -> list[Entry]:
    """Seals up to each of the bounds, stored above all else."""
    made: list[Seal] = []
    for number, bound in enumerate(bounds, start=1):
        before = made[-1] if made else None
        part = journal_in(written, before.revision if before else 0, bound)
        made.append(
            sealed(
                Seal(
                    number,
                    1_000_000.0 + bound,
                    before.hash if before else "",
                    bound,
                    len(part),
                    digest(part),
                    trimmed if number == len(bounds) else 0,
                    1,
                    "one",
                    "" if before else BEGUN,
                )
            )
        )
    return [Entry(keys.seal(s.number), codec.encode(s), 10_000 + s.number) for s in made]


@st.composite
def sealed_journals(draw: st.DrawFn) -> tuple[list[Entry], list[Entry]]:
    revisions = sorted(draw(st.sets(st.integers(1, 200), min_size=2, max_size=20)))
    written = [entry(revision, draw(st.sampled_from(["a", "b"]))) for revision in revisions]
    ends = sorted(draw(st.sets(st.sampled_from(revisions), min_size=1, max_size=6)) | {revisions[-1]})
    return written, chain(written, ends)


def looked(seals: list[Entry], written: list[Entry], head: str = "") -> Verdict:
    return verify(seals, written, 20_000, head=head)


def head_of(seals: list[Entry]) -> str:
    return codec.decode(Seal, seals[-1].value).head


@given(sealed_journals())
def test_what_nobody_touched_fits_in_whatever_order_it_is_read(both: tuple[list[Entry], list[Entry]]) -> None:
    written, seals = both

    verdict = verify(seals[::-1], written[::-1], 20_000, head=head_of(seals))

    assert verdict.ok, verdict.misfits
    assert verdict.entries == len(written)
    assert verdict.unsealed == 0


@given(sealed_journals(), st.data())
def test_any_edit_of_an_entry_is_found_at_its_seal(both: tuple[list[Entry], list[Entry]], data: st.DataObject) -> None:
    written, seals = both
    at = data.draw(st.integers(0, len(written) - 1))
    value = bytearray(written[at].value)
    byte = data.draw(st.integers(0, len(value) - 1))
    value[byte] ^= data.draw(st.integers(1, 255))
    changed = [replace(e, value=bytes(value)) if i == at else e for i, e in enumerate(written)]

    verdict = looked(seals, changed)

    covering = next(s for s in (codec.decode(Seal, e.value) for e in seals) if s.revision >= written[at].version)
    assert [misfit.seal for misfit in verdict.misfits] == [covering.number]


@given(sealed_journals(), st.data())
def test_any_entry_that_is_removed_or_renamed_or_renumbered_is_found(
    both: tuple[list[Entry], list[Entry]], data: st.DataObject
) -> None:
    written, seals = both
    at = data.draw(st.integers(0, len(written) - 1))
    one = written[at]
    other = data.draw(
        st.sampled_from([None, replace(one, key=one.key + "0"), replace(one, version=one.version + 20_000)])
    )

    assert not looked(seals, [*written[:at], *([other] if other else []), *written[at + 1 :]]).ok


@given(sealed_journals(), st.integers(1, 200), st.booleans())
def test_an_entry_that_is_added_below_the_head_is_found(
    both: tuple[list[Entry], list[Entry]], revision: int, shares_it: bool
) -> None:
    written, seals = both
    revision = min(revision, written[-1].version)
    added = replace(entry(revision, "forged"), key=keys.journal(1.0, "f" * 12))

    assert not looked(seals, [*written, added]).ok


@given(sealed_journals(), st.data())
def test_two_entries_that_change_places_are_found(both: tuple[list[Entry], list[Entry]], data: st.DataObject) -> None:
    written, seals = both
    one, two = data.draw(st.lists(st.integers(0, len(written) - 1), min_size=2, max_size=2, unique=True))
    swapped = list(written)
    swapped[one] = replace(written[one], version=written[two].version)
    swapped[two] = replace(written[two], version=written[one].version)

    assert not looked(seals, swapped).ok


@given(sealed_journals(), st.data())
def test_any_edit_of_a_seal_is_found(both: tuple[list[Entry], list[Entry]], data: st.DataObject) -> None:
    written, seals = both
    at = data.draw(st.integers(0, len(seals) - 1))
    value = bytearray(seals[at].value)
    byte = data.draw(st.integers(0, len(value) - 1))
    value[byte] ^= data.draw(st.integers(1, 255))
    changed = [replace(e, value=bytes(value)) if i == at else e for i, e in enumerate(seals)]

    assert not looked(changed, written, head_of(seals)).ok


@given(sealed_journals(), st.data())
def test_a_seal_that_is_edited_and_given_a_hash_that_fits_is_found_by_what_follows_it_or_by_the_head(
    both: tuple[list[Entry], list[Entry]], data: st.DataObject
) -> None:
    written, seals = both
    at = data.draw(st.integers(0, len(seals) - 1))
    seal = codec.decode(Seal, seals[at].value)
    forged = sealed(replace(seal, at=seal.at + 1, replica="two", hash=""))
    changed = [replace(e, value=codec.encode(forged)) if i == at else e for i, e in enumerate(seals)]

    assert not looked(changed, written, head_of(seals)).ok


@given(sealed_journals(), st.data())
def test_any_seal_that_is_removed_is_found_with_the_head_that_was_kept(
    both: tuple[list[Entry], list[Entry]], data: st.DataObject
) -> None:
    written, seals = both
    at = data.draw(st.integers(0, len(seals) - 1))

    assert not looked([*seals[:at], *seals[at + 1 :]], written, head_of(seals)).ok


@given(sealed_journals(), st.data())
def test_any_seals_that_change_places_are_found(both: tuple[list[Entry], list[Entry]], data: st.DataObject) -> None:
    written, seals = both
    order = data.draw(st.permutations(range(len(seals))))
    moved = [replace(e, value=seals[i].value) for e, i in zip(seals, order, strict=True)]

    assert looked(moved, written).ok == (list(order) == sorted(order))


@given(sealed_journals(), st.data())
def test_a_whole_chain_made_anew_over_a_changed_journal_is_found_by_whoever_kept_a_head(
    both: tuple[list[Entry], list[Entry]], data: st.DataObject
) -> None:
    written, seals = both
    at = data.draw(st.integers(0, len(written) - 1))
    changed = [*written[:at], replace(written[at], value=entry(1, "forged").value), *written[at + 1 :]]
    forged = chain(changed, [codec.decode(Seal, e.value).revision for e in seals])
    seen = {s.number: s.hash for s in (codec.decode(Seal, e.value) for e in seals)}

    assert looked(forged, changed).ok, "without a head from elsewhere nothing can be known"
    assert not looked(forged, changed, head_of(seals)).ok
    assert not verify(forged, changed, 20_000, seen=seen).ok


def test_what_is_younger_than_the_last_seal_is_counted_and_is_no_misfit() -> None:
    written = [entry(1), entry(2), entry(3)]

    verdict = looked(chain(written, [2]), written)

    assert verdict.ok
    assert (verdict.entries, verdict.unsealed) == (2, 1)
    assert verdict.unsealed_since == 1_000_003.0


def test_a_seal_of_revisions_that_the_journal_as_read_does_not_reach_claims_nothing_missing() -> None:
    written = [entry(1), entry(2), entry(3)]

    verdict = verify(chain(written, [1, 3]), written[:2], 2)

    assert verdict.ok, verdict.misfits
    assert verdict.checked == 1


def test_what_was_trimmed_is_not_missed_and_what_was_removed_beyond_it_is() -> None:
    written = [entry(1), entry(2), entry(3), entry(4)]
    seals = chain(written, [2, 4], trimmed=2)

    def floor(revision: int) -> Entry:
        return Entry(keys.JOURNAL_FLOOR, journal.floor_value(revision), 500)

    assert looked(seals, [*written[2:], floor(2)]).ok
    assert looked(seals[1:], [*written[2:], floor(2)]).misfits[0].what.startswith("seals before 2 are missing")
    assert any("trimmed up to revision 3" in one.what for one in looked(seals, [*written[3:], floor(3)]).misfits)
    assert "came to what was trimmed" in looked(seals, [*written[1:], floor(2)]).misfits[0].what
    assert looked(seals, [*written[1:], floor(1)]).ok, "trimming that was cut short"


def test_an_entry_that_says_it_is_older_than_the_seal_it_came_after_is_doubtful() -> None:
    written = [entry(1), entry(2)]
    late = entry(3, "forged", at=1_000_000.0 - HOUR)

    verdict = looked(chain(written, [2]), [*written, late])

    assert verdict.ok
    assert verdict.doubtful == (late.key,)


def test_a_head_says_what_it_is_or_why_it_cannot_be_compared() -> None:
    written = [entry(1), entry(2)]
    seals = chain(written, [1, 2])
    head = head_of(seals)

    assert looked(seals, written, head.partition(":")[2]).ok
    assert "is no head" in looked(seals, written, "abc").misfits[0].what
    assert any("cannot be compared" in one.what for one in looked(seals[1:], written, "1:" + "0" * 64).misfits)
    assert "made anew" in looked(seals, written, "7:" + "0" * 64).misfits[0].what


def test_a_journal_without_seals_is_told_as_such() -> None:
    verdict = looked([], [entry(1)])

    assert verdict.ok
    assert verdict.last is None
    assert verdict.unsealed == 1


@given(
    st.dictionaries(
        st.sampled_from(
            ["number", "at", "previous", "revision", "count", "digest", "trimmed", "anchor", "begins", "hash"]
        ),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.integers(), max_size=2),
    )
)
def test_a_seal_of_whatever_kind_breaks_nothing_and_is_found(lies: dict[str, object]) -> None:
    written = [entry(1), entry(2)]
    seals = chain(written, [1, 2])
    plain = json.loads(seals[1].value)
    forged = replace(seals[1], value=json.dumps({**plain, **lies}).encode())
    seen = Chain()
    seen.on_change([Change(forged.key, forged), Change(seals[0].key, seals[0])])

    verdict = looked([seals[0], forged], written)

    assert not verdict.ok or json.loads(forged.value) == plain
    assert seen.kept


def test_an_entry_whose_key_is_no_text_has_a_digest_of_its_own() -> None:
    texts = {digest([Entry(f"journal/{key}", b"{}", 7)]) for key in ("a", "\ud800", "\udcff", "?")}
    assert len(texts) == 4
