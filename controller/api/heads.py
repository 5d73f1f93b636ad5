"""How long a request's head may be: what nobody has judged yet must not fill the memory.

uvicorn keeps whatever comes before the empty line, for whoever sends it. Here line and fields have a limit, and so has
what the parser swallows without a word: half a field, an extension of a chunk. Fields behind a body (trailers) are not
taken for fields in front of it: those were judged already. Never looks into what it counts.
"""

from __future__ import annotations

from controller.api.outlet import Http

MAX_HEAD_BYTES = 64 * 1024
_TOO_LONG = b"The head of the request is too long: at most %d bytes." % MAX_HEAD_BYTES


class _TooLong(Exception):
    """Ends the parsing of what has come."""


class ShortHttp(Http):
    _is_head = True
    _head = 0  # bytes of line, fields and trailers
    _silent = 0  # bytes since the parser last told of something
    _told = 0

    def data_received(self, data: bytes) -> None:
        told = self._told
        super().data_received(data)
        self._silent = self._silent + len(data) if self._told == told else 0
        if self._silent > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Of what cannot be parsed; also called when it was this class that ended the parsing."""
        if max(self._head, self._silent) <= MAX_HEAD_BYTES:
            super().send_400_response(msg)
            return
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n%bcontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (self._usual_headers(), len(_TOO_LONG), _TOO_LONG)
        )
        self.transport.close()

    def on_message_begin(self) -> None:
        self._is_head, self._head = True, 0
        self._told += 1
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        if self._is_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_head = False
        self._told += 1
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._told += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._told += 1
        super().on_message_complete()

    def _count(self, length: int) -> None:
        self._told += 1
        self._head += length + 4  # and what stands between and behind
        if self._head > MAX_HEAD_BYTES:
            raise _TooLong
