"""A new certificate without a restart: who is connected stays so, who comes sees the new one."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from sage_ws import SecureMessage, connect, run, serve

if TYPE_CHECKING:
    import trustme

# Its loop is the one of this test run.
PROGRAM = """
import os, sys
if os.environ.get("SAGE_WS_TEST_LOOP") != "uvloop":
    sys.modules["uvloop"] = None
import logging
from sage_ws import run

def handler(message):
    return str(os.getpid()).encode()

logging.basicConfig(level=logging.INFO, format="%(message)s in %(process)d", stream=sys.stdout)
run(handler, port=0, certfile="own.pem", keyfile="own.key", **OPTIONS)
print("returned", flush=True)
"""

needs_hangups = pytest.mark.skipif(sys.platform == "win32", reason="SIGHUP is of POSIX")


def message(payload: bytes = b"x") -> SecureMessage:
    return SecureMessage(payload=payload, did="did:sage:test")


async def echo(one: SecureMessage) -> bytes:
    return one.payload


class Files:
    """`own.pem` and `own.key`, renewed as an ACME client does: one after the other, each in one piece."""

    def __init__(self, authority: trustme.CA, folder: Path) -> None:
        self._authority = authority
        self.pem, self.key = folder / "own.pem", folder / "own.key"
        self.renew()

    def renew(self) -> None:
        made = self._authority.issue_cert("127.0.0.1", "localhost")
        self.write(self.key, made.private_key_pem.bytes())
        self.write(self.pem, made.cert_chain_pems[0].bytes())

    @staticmethod
    def write(path: Path, content: bytes) -> None:
        path.with_suffix(".new").write_bytes(content)
        path.with_suffix(".new").replace(path)

    @property
    def shown(self) -> bytes:
        """The certificate, as a client gets it."""
        return ssl.PEM_cert_to_DER_cert(self.pem.read_text())


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """In the working directory, of programs too."""
    monkeypatch.chdir(tmp_path)
    return Files(authority, tmp_path)


@pytest.fixture
def shown(ours: ssl.SSLContext) -> Callable[[int], Awaitable[bytes]]:
    """``await shown(port)``: the certificate that a new connection gets."""

    async def look(port: int) -> bytes:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ours)
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        try:
            return tls.getpeercert(binary_form=True) or b""
        finally:
            writer.transport.abort()

    return look


async def test_a_context_that_is_loaded_again_is_used_by_further_connections(
    files: Files, ours: ssl.SSLContext, shown: Any
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.pem, files.key)
    old = files.shown
    async with serve(echo, ssl=context) as server:
        url = f"wss://localhost:{server.port}"
        async with connect(url, ssl=ours, reconnect=False) as before:
            assert await shown(server.port) == old
            files.renew()
            assert await shown(server.port) == old
            context.load_cert_chain(files.pem, files.key)
            assert await shown(server.port) == files.shown != old
            assert (await before.send(message(b"old"))).data == b"old"
            async with connect(url, ssl=ours, reconnect=False) as after:
                assert (await after.send(message(b"new"))).data == b"new"


@needs_hangups
class TestHangup:
    @pytest.fixture
    async def start(self, start_program: Any, files: Files) -> Callable[..., Awaitable[Any]]:
        """``await start(workers)``: the program above, when it serves."""

        async def start(workers: int) -> Any:
            program = await start_program(PROGRAM.replace("OPTIONS", f"{{'workers': {workers}}}"))
            line = await program.line("serving on" if workers == 1 else f"{workers} workers are serving on")
            program.port = int(re.search(r":(\d+) in", line)[1])  # type: ignore[index]
            return program

        return start

    @pytest.mark.parametrize("workers", [1, 2])
    async def test_it_loads_the_certificate_again_in_every_process(
        self, start: Any, files: Files, shown: Any, ours: ssl.SSLContext, workers: int
    ) -> None:
        program = await start(workers)
        old = files.shown
        async with connect(f"wss://localhost:{program.port}", ssl=ours, reconnect=False) as before:
            pid = int((await before.send(message())).data)
            assert await shown(program.port) == old
            files.renew()
            program.signal(signal.SIGHUP)
            for _ in range(1 if workers == 1 else workers + 1):
                await program.line("loaded the certificate own.pem again")
            assert {await shown(program.port) for _ in range(6)} == {files.shown}
            assert files.shown != old
            assert int((await before.send(message())).data) == pid
            if workers > 1:  # one that is started later has it too
                first = [await program.line("started") for _ in range(workers)]
                os.kill(pid, signal.SIGKILL)
                later = int(re.search(r"pid (\d+)", await program.line("started"))[1])  # type: ignore[index]
                assert str(later) not in " ".join(first)
                answered = 0
                async with asyncio.timeout(20):
                    while answered != later:
                        try:
                            async with connect(before.url, ssl=ours) as after:
                                answered = int((await after.send(message())).data)
                        except ConnectionError:  # it went to the one that was killed
                            continue
                        assert await shown(program.port) == files.shown
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0

    @pytest.mark.parametrize("workers", [1, 2])
    @pytest.mark.parametrize("fault", ["no certificate", "another's key", "gone"])
    async def test_the_old_one_stays_where_the_new_one_is_broken(
        self, start: Any, files: Files, shown: Any, workers: int, fault: str
    ) -> None:
        program = await start(workers)
        old = files.shown
        if fault == "no certificate":
            files.write(files.pem, b"-----BEGIN CERTIFICATE-----\nbroken\n")
        elif fault == "another's key":
            key = files.key.read_bytes()
            files.renew()
            files.write(files.key, key)
        else:
            files.key.unlink()
        program.signal(signal.SIGHUP)
        line = await program.line("the old certificate stays: cannot load own.pem and own.key: ")
        assert f" in {program.pid}" in line
        assert {await shown(program.port) for _ in range(4)} == {old}
        files.renew()
        program.signal(signal.SIGHUP)
        for _ in range(1 if workers == 1 else workers + 1):
            await program.line("loaded the certificate own.pem again")
        assert {await shown(program.port) for _ in range(4)} == {files.shown}
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0
        assert not [line for line in await program.rest() if "stays" in line], "it was said once"

    async def test_said_to_the_whole_group_it_ends_nobody(self, start: Any, files: Files, shown: Any) -> None:
        program = await start(2)
        files.renew()
        os.killpg(program.pid, signal.SIGHUP)
        for _ in range(5):  # the parent by itself, each worker by itself and by the parent's word
            await program.line("loaded the certificate own.pem again")
        assert {await shown(program.port) for _ in range(4)} == {files.shown}
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0


class TestFiles:
    def test_a_context_of_ones_own_is_loaded_into(
        self, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sage_ws.aio import certificate

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made = certificate.Certificate("own.pem", "own.key", context)
        assert made.context is context

    def test_one_file_may_hold_both(self, files: Files) -> None:
        from sage_ws.aio.certificate import Certificate

        files.pem.write_bytes(files.key.read_bytes() + files.pem.read_bytes())
        assert Certificate("own.pem", None, None).context.minimum_version >= ssl.TLSVersion.TLSv1_2

    @pytest.mark.parametrize("workers", [1, 2])
    def test_what_cannot_be_loaded_is_told_with_its_name(self, files: Files, workers: int) -> None:
        files.key.unlink()
        with pytest.raises(OSError, match=r"^cannot load own.pem and own.key: \[Errno 2\]"):
            run(echo, port=0, certfile="own.pem", keyfile="own.key", workers=workers)

    @pytest.mark.parametrize(("certfile", "keyfile"), [("own.pem", None), ("own.key", "own.key")])
    def test_a_file_without_the_one_or_the_other(
        self, files: Files, certfile: str, keyfile: str | None
    ) -> None:
        with pytest.raises(OSError, match=r"a certificate in PEM and its private key must stand there$"):
            run(echo, port=0, certfile=certfile, keyfile=keyfile)

    def test_an_encrypted_key_is_refused_and_nobody_is_asked(self, files: Files) -> None:
        key = load_pem_private_key(files.key.read_bytes(), None)
        encryption = BestAvailableEncryption(b"secret")
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, encryption))
        with pytest.raises(OSError, match="the private key is encrypted; give ssl= a context that has it"):
            run(echo, port=0, certfile="own.pem", keyfile="own.key")

    def test_a_key_alone_is_refused(self) -> None:
        with pytest.raises(ValueError, match="keyfile needs certfile"):
            run(echo, port=0, keyfile="own.key")

    @pytest.mark.parametrize("name", ["certfile", "keyfile"])
    def test_a_path_is_a_str(self, name: str) -> None:
        with pytest.raises(TypeError, match=f"{name} must be a str or None"):
            run(echo, port=0, **{name: 3})  # type: ignore[arg-type]
