"""Whether a server's certificate does for those who connect to it: tried as they would try it, in memory."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from pathlib import Path

DAYS = 397
"""That a certificate is good for."""
RENEW = 60 * 86400
"""Seconds before its end from which on it is replaced."""


def complaint(certificate: Path, key: Path, authority: Path, names: Sequence[str], now: float | None = None) -> str:
    """Why the certificate has to be made anew; an empty string where it does.

    `names` are the addresses and names that clients verify it by.
    """
    if not (certificate.is_file() and key.is_file() and authority.is_file()):
        return "there is none"
    try:
        ends = min(_accepted(certificate, key, authority, name) for name in names)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message.rstrip(".")
    except (ssl.SSLError, OSError) as error:
        return f"it cannot be used ({error.strerror or type(error).__name__})"
    left = ends - (time.time() if now is None else now)
    return f"it ends in {left / 86400:.0f} days" if left < RENEW else ""


def _accepted(certificate: Path, key: Path, authority: Path, name: str) -> float:
    """When the certificate ends, in seconds since 1970, for a client that asks for `name`. Raises ssl.SSLError."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=authority)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, there, server_hostname=name)
    answering = server.wrap_bio(there, back, server_side=True)
    for side in (asking, answering, asking):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    shown = asking.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))
