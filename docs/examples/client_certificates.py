# ruff: noqa: INP001  # an example stands by itself
"""An agent that knows its callers by their certificates: the proof is TLS's, `authorize` reads the name.

``serve(handler, port=8443, ssl=server_context("own.pem", "own.key", "callers.pem"), authorize=authorize)``
puts the parts together.
"""

from __future__ import annotations

import ssl

from sage_ws import Call, RefusedError, SecureMessage, UpgradeRequest


def server_context(certificate: str, key: str, callers_authority: str) -> ssl.SSLContext:
    """Make a context for a server whose callers must all show a certificate of one authority.

    Args:
        certificate: path of the server's own certificate, with its chain.
        key: path of its private key.
        callers_authority: path of the certificate that has signed the callers'.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(callers_authority)
    # CERT_OPTIONAL would leave it to `authorize` what becomes of a caller without one.
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def authorize(request: UpgradeRequest) -> str:
    """The first DNS name that the caller's certificate was issued for is its identity."""
    certificate = request.peer_certificate or {}
    names = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"]
    if not names:
        raise RefusedError(403, "a certificate with a DNS name is needed")
    return str(names[0])


async def handler(message: SecureMessage, call: Call) -> bytes:
    """Answer with who asked: proven, while ``message.did`` is what the caller says of itself."""
    return f"{call.identity} says it is {message.did}".encode()
