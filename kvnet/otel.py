"""The tracer that tells OpenTelemetry: OTLP over HTTP, by the SDK, in a thread of its own.

Where it sends to and how much is sampled is said by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_TRACES_SAMPLER and so on). A collector that is away costs spans, never a request: what cannot be sent is dropped.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Self

from kvnet import __version__
from kvnet.errors import Unfit
from kvnet.spans import Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

EXPORT_S = 5
CLOSE_S = 2.0
NANOSECONDS = 1_000_000_000
_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")


class OtelTracer:
    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("kvnet", __version__)

    @classmethod
    def open(cls, component: str, facts: Mapping[str, str], exporter: SpanExporter | None = None) -> Self:
        """
        Raises:
            Unfit: OpenTelemetry is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise Unfit(
                f"tracing was asked for, and OpenTelemetry is not installed ({error.name})",
                fix="pip install 'kvnet[otel]', or leave out --otel and OTEL_EXPORTER_OTLP_ENDPOINT",
            ) from error
        who = {"service.name": f"kvnet-{component}", "service.version": __version__, **facts}
        provider = TracerProvider(resource=Resource.create(who), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(timeout=EXPORT_S)))
        return cls(provider)

    def span(self, name: str, parent: str = "", **facts: str | int | float) -> AbstractContextManager[Span]:
        return self._spanning(name, parent, facts)

    @contextmanager
    def _spanning(self, name: str, parent: str, facts: Mapping[str, Any]) -> Iterator[Span]:
        with self._tracer.start_as_current_span(name, context=_context(parent), attributes=dict(facts)) as made:
            yield _Told(made)

    def record(self, name: str, began: float, ended: float, parent: str, **facts: str | int | float) -> None:
        made = self._tracer.start_span(
            name, context=_context(parent), attributes=dict(facts), start_time=int(began * NANOSECONDS)
        )
        made.end(int(ended * NANOSECONDS))

    def close(self) -> None:
        """Nobody waits longer than that for a collector that is away."""
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(CLOSE_S)


class _Told:
    def __init__(self, span: Any) -> None:
        self._span = span

    @property
    def trace(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def call(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, **facts: str | int | float) -> None:
        self._span.set_attributes(facts)


def _context(parent: str) -> Any:
    """Below the span that `parent` names; a new trace if it names none."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    found = _PARENT.match(parent)
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return Context()
    flags = TraceFlags(int(found[3], 16))
    place = SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(place), Context())
