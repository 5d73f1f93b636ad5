"""Makes keys and signing requests, in a process of its own: what it takes for that is larger than a worker.

Run as `python -m worker.keymaking [KEYFILE]`: with a file it asks in the name of that key, else it makes a new one.
Prints JSON: the request, and the key if it is new. The subject is empty: whoever signs sets it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import NamedTuple

from kvnet.errors import StateUnusable

PATIENCE_S = 20.0


class Request(NamedTuple):
    """PEM, both; `key` is "" where there was one."""

    request: str
    key: str


def make(key_file: Path | None) -> Request:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if key_file is None:
        key = ec.generate_private_key(ec.SECP256R1())
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
    else:
        found = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key_file} is not a key of ECDSA")
        key, text = found, ""
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return Request(asked.public_bytes(serialization.Encoding.PEM).decode(), text)


async def made_apart(key_file: Path | None = None) -> Request:
    """Raises: StateUnusable."""
    arguments = [sys.executable, "-m", "worker.keymaking", *([str(key_file)] if key_file else [])]
    child = await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            said, complaint = await child.communicate()
        return Request(**json.loads(said))
    except (TimeoutError, ValueError, TypeError) as error:
        why = complaint.decode(errors="replace").strip().rpartition("\n")[2] if child.returncode else str(error)
        raise StateUnusable(
            f"no signing request could be made: {why}", fix="look at identity/key.pem in the state directory"
        ) from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def main() -> None:
    made = make(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(json.dumps(made._asdict()))


if __name__ == "__main__":
    main()
