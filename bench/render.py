"""`python -m bench.render`: the page and its plots made anew of the recorded figures, without measuring anything."""

from __future__ import annotations

from bench import page, record

if __name__ == "__main__":
    page.write(record.read())
