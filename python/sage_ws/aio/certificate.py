"""The certificate that `run` serves with: files, loaded again on SIGHUP, and the context they are in.

Connections that are open keep what they have; further ones get the new certificate.
"""

from __future__ import annotations

import ssl
from typing import NoReturn

from sage_ws.logs import logger_of

logger = logger_of("server")


class Certificate:
    """Loaded at construction.

    Args:
        certfile: path of the certificate with its chain, in PEM.
        keyfile: path of its private key; None where that stands in ``certfile`` too.
        context: what to load it into; None makes a context.

    Attributes:
        context: the context to serve with.

    Raises:
        OSError: a file cannot be read, or does not hold what it should, or the key is encrypted.
    """

    def __init__(self, certfile: str, keyfile: str | None, context: ssl.SSLContext | None) -> None:
        self._files = certfile, keyfile
        self.context = context or _fresh()
        self._load()

    def _load(self) -> None:
        certfile, keyfile = self._files
        try:
            # On trial first: OpenSSL takes a certificate before it has seen that the key is another's.
            for context in (_fresh(), self.context):
                context.load_cert_chain(certfile, keyfile, password=_refuse)
        except OSError as error:  # which names no file by itself
            shown = certfile if keyfile is None else f"{certfile} and {keyfile}"
            why: object = error
            if isinstance(error, ssl.SSLError) and "PEM" in str(error):  # OpenSSL says no more than that
                why = "a certificate in PEM and its private key must stand there"
            raise OSError(f"cannot load {shown}: {why}") from error

    def reload(self) -> bool:
        """Load it again, for further connections; False, and logged, where the old one stays."""
        try:
            self._load()
        except OSError as error:
            logger.error("the old certificate stays: %s", error)  # noqa: TRY400 - says it all
            return False
        logger.info("loaded the certificate %s again", self._files[0])
        return True


def _fresh() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def _refuse() -> NoReturn:
    """In the place of a prompt, which would stop a server that reloads."""
    raise OSError("the private key is encrypted; give ssl= a context that has it")
