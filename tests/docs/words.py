"""Compares what a page shows with what was printed: exact, but for words that no two runs have in common.

Such words are ids, times, ages, MACs, random ranges, revisions and ports. What stands for what is remembered: an id
that a page shows in one output may be typed in a later command, and must be the same wherever it is shown again. `...`
on a line of its own stands for any lines, within a line for anything. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.docs.pages import ELISION

# Order matters: the first that fits is taken.
_NUMBERED = (
    r'"(?:version|revision|wanted|applied|lag_revisions|vni|pid|ifindex)": ?',
    r"\b(?:revisions?|version|VNI|vni|since|pid|index|up to) ",
    r"\b(?:version|id|since|pid|index)=",
    r"--(?:version|since) ",
    r"\bvnis/",
    r"\b(?:VNI|Revision|Version|content-length): +",
    r'(?:W/|If-Match: |[Ee][Tt]ag: )"',
)
_UNITS = r"(?:µs|us|ms|min|s|m|h|d)(?![A-Za-z])"
_KINDS = {
    "time": (
        r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?(?:\s+\d+(?=\s))?"
        r"|\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT|\b\d{16}\b|\b\d\d:\d\d:\d\d UTC"
    ),
    "mac": r"(?<![\w:])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![\w:])",
    "local": r"\bfe80:[0-9a-f:]+",
    "range": r"\bfd(?!00:)[0-9a-f]{2}:[0-9a-f]{1,4}:[0-9a-f]{1,4}(?=:)",
    "link": r"\b(?:kv[a-z]|docker-|veth)[0-9a-f]{6,12}\b(?:@if\d+|@\w+)?",
    "id": (
        r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
        r"|\b(?=[0-9a-f]*\d)[0-9a-f]{12,64}\b"
    ),
    "progress": r"\brevision (?:\d+|\?) of \d+\b",
    "version": f"(?P<before>{'|'.join(_NUMBERED)})(?P<number>\\d+)\\b(?![-.:]\\d)",
    "took": (
        r"\b\d+\.\d+(?:/\d+\.\d+)+ ms|(?<![\w.:/-])(?:\d+(?:\.\d+)?\s?" + _UNITS + r"\s?)+(?!\w)"
        r"|\b(?:\d+|About an?|Less than a) (?:second|minute|hour|day)s?\b"
    ),
    "seconds": r'"\w*(?:seconds|_s|_ms|_at|age)": ?[\d.]+',
    "port": r"(?<=[\d\]\w]):(?:1[5-9]\d{3}|[2-6]\d{4})\b|\b(?:49[2-9]\d\d|5\d{4}|6[0-5]\d{3})(?=/tcp|/udp|->)",
    "size": r"\b\d+ bytes\b",
    "index": r"^\d+(?=: \w)|\bif\d+\b|(?<=link-netnsid )\d+|(?<=PID )\d+",
}
_LINK = re.compile(r"(kv[a-z]|docker-|veth)([0-9a-f]{6,12})(.*)")
_VOLATILE = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _KINDS.items()))
# Columns of tables whose cells say when or how often, not what.
_COLUMNS = {
    *("AGE", "LAST SEEN", "VERSION", "REVISION", "BEHIND", "VNI", "SINCE", "CREATED", "LAG", "WANTED", "APPLIED", "ID"),
    *("NETWORK ID", "CONTAINER ID", "STATUS AGE", "PID", "ATTACHED IN", "FIRST PACKET", "RTT", "TIME", "UNTIL", "TOOK"),
}
_NAMED = {"id", "link", "mac", "range", "version"}
_CELL = re.compile(r"\S+(?: \S+)*")
_HEADER = re.compile(r"^[A-Z][A-Z0-9 /()%,.-]+$")


@dataclass(frozen=True, slots=True)
class Word:
    kind: str
    text: str


@dataclass(slots=True)
class Known:
    """What words of the page stand for in this run, and back."""

    actual: dict[Word, str] = field(default_factory=dict)
    shown: dict[Word, str] = field(default_factory=dict)

    def learn(self, shown: Word, actual: Word) -> None:
        for one, other in _parts(shown, actual):
            self.actual.setdefault(one, other.text)
            self.shown.setdefault(other, one.text)

    def contradicts(self, shown: Word, actual: Word) -> bool:
        """An id that stood for another one before."""
        return shown.kind == "id" and self.actual.get(shown, actual.text) != actual.text

    def typed(self, command: str) -> str:
        """The command of the page as it has to be typed in this run."""
        return _VOLATILE.sub(lambda found: _translated(found, self.actual), command)

    def pasted(self, line: str) -> str:
        """A line of this run's output with the page's own words where it has some."""
        return _VOLATILE.sub(lambda found: _translated(found, self.shown), line)


def differs(shown: Sequence[str], printed: Sequence[str], known: Known) -> bool:
    """Whether they differ; what was learnt from equal ones is remembered."""
    shown, printed = _single_blanks(shown), _single_blanks(printed)
    pairs = _align(_templates(shown), _templates(printed))
    if pairs is None:
        return True
    new = [pair for one, other in pairs for pair in _words_of(shown[one], printed[other])]
    if any(known.contradicts(*pair) for pair in new):
        return True
    for pair in new:
        known.learn(*pair)
    return False


def begins_with(shown: Sequence[str], printed: Sequence[str], known: Known) -> bool:
    """The same for what still prints: whatever follows is no difference."""
    return not differs([*shown, ELISION], printed, known)


def _single_blanks(lines: Sequence[str]) -> list[str]:
    """Several empty lines are as good as one."""
    return [line for n, line in enumerate(lines) if line.strip() or n == 0 or lines[n - 1].strip()]


def _templates(lines: Sequence[str]) -> list[str]:
    """Each line without its volatile words and with one space between columns."""
    found = []
    columns: list[tuple[str, int, int]] = []
    for line in lines:
        header = _columns(line)
        if header:
            columns = header
        elif not line.strip():
            columns = []
        text = line if header else _without_cells(line, columns)
        found.append(_squeezed(_VOLATILE.sub(lambda word: f"<{_kind(word)}>", text)))
    return found


def _squeezed(line: str) -> str:
    body = line.lstrip(" ")
    return line[: len(line) - len(body)] + re.sub(r"\s+", " ", body).rstrip()


def _columns(line: str) -> list[tuple[str, int, int]]:
    """Names and places of a table's columns, if the line is its head."""
    cells = [(cell[0], *cell.span()) for cell in re.finditer(r"\S+(?: \S+)*", line)]
    if len(cells) < 2 or not all(_HEADER.match(name) for name, _, _ in cells):
        return []
    return cells


def _without_cells(line: str, columns: Sequence[tuple[str, int, int]]) -> str:
    if not columns or line.strip() == ELISION:
        return line

    def kept(cell: re.Match[str]) -> str:
        start, end = cell.span()
        name, _, _ = min(columns, key=lambda c: (max(0, c[1] - end, start - c[2]), abs(c[1] - start)))
        return f"<{name.lower()}>" if name in _COLUMNS and cell[0] not in ("-", ELISION) else cell[0]

    return _CELL.sub(kept, line)


def _align(shown: Sequence[str], printed: Sequence[str]) -> list[tuple[int, int]] | None:
    """Which line shows which, or None if they cannot be brought together."""

    fits = _table(shown, printed)
    if not fits[0][0]:
        return None
    pairs, one, other = [], 0, 0
    while one < len(shown):
        if shown[one].strip() == ELISION:
            one, other = (one + 1, other) if fits[one + 1][other] else (one, other + 1)
        else:
            pairs.append((one, other))
            one, other = one + 1, other + 1
    return pairs


def _table(shown: Sequence[str], printed: Sequence[str]) -> list[list[bool]]:
    """`[i][j]`: whether the lines from `i` on show those from `j` on."""
    fits = [[False] * (len(printed) + 1) for _ in range(len(shown) + 1)]
    fits[len(shown)][len(printed)] = True
    for one in range(len(shown) - 1, -1, -1):
        is_any = shown[one].strip() == ELISION
        for other in range(len(printed), -1, -1):
            is_last = other == len(printed)
            if is_any:
                fits[one][other] = fits[one + 1][other] or (not is_last and fits[one][other + 1])
            else:
                fits[one][other] = not is_last and fits[one + 1][other + 1] and _fits(shown[one], printed[other])
    return fits


def _fits(shown: str, printed: str) -> bool:
    if ELISION not in shown:
        return shown == printed
    return re.fullmatch(".*?".join(map(re.escape, shown.split(ELISION))), printed) is not None


def _words_of(shown: str, printed: str) -> Iterator[tuple[Word, Word]]:
    if ELISION in shown:
        shown_words, printed_words = list(_words(shown.split(ELISION)[0])), list(_words(printed))
    else:
        shown_words, printed_words = list(_words(shown)), list(_words(printed))
    for one, other in zip(shown_words, printed_words, strict=False):
        if one.kind != other.kind:
            return
        yield one, other


def _words(line: str) -> Iterator[Word]:
    for found in _VOLATILE.finditer(line):
        kind = _kind(found)
        if kind in _NAMED:
            yield Word(kind, found["number"] if kind == "version" else found[0])


def _kind(found: re.Match[str]) -> str:
    return next(kind for kind in _KINDS if found[kind] is not None)


def _parts(shown: Word, actual: Word) -> Iterator[tuple[Word, Word]]:
    """A long id may be shown short elsewhere, and a link is called after an id."""
    yield shown, actual
    if shown.kind == "id" and len(shown.text) == len(actual.text) > 12:
        yield Word("id", shown.text[:12]), Word("id", actual.text[:12])
    if shown.kind == "link":
        one, other = (_LINK.fullmatch(word.text) for word in (shown, actual))
        if one and other:
            yield Word("id", one[2]), Word("id", other[2])


def _translated(found: re.Match[str], known: dict[Word, str]) -> str:
    kind = _kind(found)
    if kind == "version":
        return found["before"] + known.get(Word(kind, found["number"]), found["number"])
    if kind == "link" and Word(kind, found[0]) not in known:
        return _LINK.sub(lambda link: link[1] + known.get(Word("id", link[2]), link[2]) + link[3], found[0])
    return known.get(Word(kind, found[0]), found[0])
