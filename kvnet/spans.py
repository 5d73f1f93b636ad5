"""What a trace is told by: spans of requests, commits and passes, each below the one that it was done for.

A span's place in its trace is a W3C traceparent, plain text that travels like a request's id: in a header, in the
stored object's stamp, to every host. Here is the contract, and the tracer that tells nothing and costs next to nothing;
`kvnet.otel` has the one that tells OpenTelemetry, and is loaded only where somebody asked for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol


class Span(Protocol):
    """`trace`: its traceparent, "" where nothing is traced."""

    @property
    def trace(self) -> str: ...

    def call(self, name: str) -> None:
        """What it is turns out to be called so."""
        ...

    def note(self, **facts: str | int | float) -> None: ...


class Tracer(Protocol):
    """Never raises, and never waits for whoever collects."""

    def span(self, name: str, parent: str = "", **facts: str | int | float) -> AbstractContextManager[Span]:
        """While the block runs; one that raises is told as failed."""
        ...

    def record(self, name: str, began: float, ended: float, parent: str, **facts: str | int | float) -> None:
        """One that is over already, by the wall clock."""
        ...


class _Nothing:
    trace = ""

    def call(self, name: str) -> None:
        pass

    def note(self, **facts: str | int | float) -> None:
        pass


class _Untold:
    def __init__(self) -> None:
        self._span = nullcontext(_Nothing())

    def span(self, name: str, parent: str = "", **facts: str | int | float) -> AbstractContextManager[Span]:
        return self._span

    def record(self, name: str, began: float, ended: float, parent: str, **facts: str | int | float) -> None:
        pass


UNTOLD: Tracer = _Untold()


@contextmanager
def tracing(is_asked_for: bool, component: str, **facts: str) -> Iterator[Tracer]:
    """A tracer for one process, and its end: what was not told yet is told, for a bounded time.

    Raises:
        Unfit: it is asked for and not installed.
    """
    if not is_asked_for:
        yield UNTOLD
        return
    from kvnet.otel import OtelTracer

    tracer = OtelTracer.open(component, facts)
    try:
        yield tracer
    finally:
        tracer.close()
