"""Why a connection that should speak TLS does not come about. Client libraries rarely say; this asks Python's own.

Only looks: opens connections of its own, sends no credentials but the certificate that we would present, and closes
them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from backends.url import Endpoint, Tls

TIMEOUT_S = 3.0
# An HTTP/2 client's first words: a server that speaks it answers, one that refuses our certificate says so now.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def make_context(tls: Tls) -> ssl.SSLContext:
    """Reads files: not for the event loop.

    Raises:
        OSError, ssl.SSLError: a file is not what it should be.
    """
    context = ssl.create_default_context(cafile=tls.ca or None)
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key)
    return context


def wrong_file(tls: Tls) -> str:
    """What is wrong with the files; "" if nothing is. Not for the event loop."""
    try:
        make_context(Tls(ca=tls.ca))
    except (OSError, ssl.SSLError) as error:
        return f"{tls.ca} is no file of certificates in PEM ({_reason(error)})"
    try:
        make_context(Tls(cert=tls.cert, key=tls.key))
    except (OSError, ssl.SSLError) as error:
        return f"{tls.cert} and {tls.key} are no certificate and its key in PEM ({_reason(error)})"
    return ""


async def distrust(endpoint: Endpoint, tls: Tls | None, hello: bytes = HELLO) -> str:
    """One clause on why the two sides do not trust or understand each other; "" if that is not the trouble."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await (_with_tls(endpoint, tls, hello) if tls else _without_tls(endpoint))
    except TimeoutError:
        return ""


async def _with_tls(endpoint: Endpoint, tls: Tls, hello: bytes) -> str:
    context = await asyncio.to_thread(make_context, tls)
    context.set_alpn_protocols(["h2"])
    try:
        await _exchange(endpoint, context, hello)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not accepted: {error.verify_message.rstrip('.')}"
    except ssl.SSLError as error:
        if "ALERT" in (error.reason or "").upper():
            return f"it does not accept our certificate{'' if tls.cert else ' (none was given)'}: {_reason(error)}"
        return await _plain_after(endpoint, _reason(error))
    except OSError as error:
        return await _plain_after(endpoint, "") if isinstance(error, ConnectionError) else ""
    return ""


async def _plain_after(endpoint: Endpoint, reason: str) -> str:
    """TLS failed. Because the other side does not speak it at all?"""
    with contextlib.suppress(OSError):
        if await _exchange(endpoint, None, HELLO):
            return "it does not speak TLS (a plain URL without the 's' would)"
    return f"no TLS connection comes about: {reason}" if reason else ""


async def _without_tls(endpoint: Endpoint) -> str:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        await _exchange(endpoint, context, b"")
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or "").upper():
            return ""
    except OSError:
        return ""
    return "it speaks TLS only (a URL with the 's' would)"


async def _exchange(endpoint: Endpoint, context: ssl.SSLContext | None, hello: bytes) -> bytes:
    """Connect, say hello, and return what comes back; nothing is waited for without a hello."""
    reader, writer = await asyncio.open_connection(
        endpoint.host, endpoint.port, ssl=context, server_hostname=endpoint.host if context else None
    )
    try:
        if not hello:
            return b""
        writer.write(hello)
        return await reader.read(1)
    finally:
        writer.transport.abort()


def _reason(error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return (reason or type(error).__name__).replace("_", " ").lower()
