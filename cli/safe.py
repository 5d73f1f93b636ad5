"""What other people wrote, made harmless for a terminal: names, labels and details may come from anywhere.

Pure. Everything that a terminal could take as a command (escape sequences, C1 controls, direction overrides, line
breaks) is shown as its escape; everything printable stays as it is.
"""

from __future__ import annotations


def safe(text: object) -> str:
    """One line without anything unprintable."""
    shown = text if isinstance(text, str) else str(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in shown)


def safe_lines(text: str) -> str:
    """Like `safe`, but line breaks stay: for texts of several lines."""
    return "\n".join(safe(line) for line in text.splitlines())
