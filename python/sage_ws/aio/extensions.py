"""permessage-deflate in the opening handshake (RFC 7692 §7.1): what is offered, and what is chosen.

Offers are made, chosen and judged by `websockets`' extension factories; from there the core takes over.
Nothing is offered or chosen without ``compression=``, and then this file is not even imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from websockets.exceptions import InvalidHeader, InvalidHeaderFormat
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.server import ServerProtocol

from sage_ws.aio.opening import QUIET, Refusal
from sage_ws.compression import Deflate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from websockets.client import ClientProtocol
    from websockets.extensions import ClientExtensionFactory

    from sage_ws.aio.head import RequestHead
    from sage_ws.aio.opening import Negotiated

    Compression = Literal["deflate"] | Deflate


LARGEST: Final = 15
"""Window bits that need no word."""


def offers(compression: Compression) -> Sequence[ClientExtensionFactory]:
    """What a client offers, the best first: the last lets the server have any window, as some must."""
    wanted = _details(compression)
    windows = [None] if wanted.server_max_window_bits == LARGEST else [wanted.server_max_window_bits, None]
    return [
        ClientPerMessageDeflateFactory(
            wanted.server_no_context_takeover,
            wanted.client_no_context_takeover,
            server_max_window_bits,
            _bound(wanted.client_max_window_bits) or True,  # bound or not, it can be told to keep to less
        )
        for server_max_window_bits in windows
    ]


def agreed(protocol: ClientProtocol, compression: Compression) -> Negotiated | None:
    """What a server chose of our offers; None where it chose nothing."""
    if not protocol.extensions:
        return None
    wanted = _details(compression)
    return _negotiated(
        cast("PerMessageDeflate", protocol.extensions[0]),
        wanted,
        wanted.client_max_window_bits,
        wanted.client_no_context_takeover,
    )


def choose(request: RequestHead, compression: Compression) -> tuple[str | None, Negotiated | None]:
    """What a server chooses of a client's offers.

    Returns:
        The answer's header, and what it means; None for both where nothing was offered that can be had.

    Raises:
        Refusal: 400, the offer is malformed.
    """
    wanted = _details(compression)
    factory = ServerPerMessageDeflateFactory(
        wanted.server_no_context_takeover,
        wanted.client_no_context_takeover,
        _bound(wanted.server_max_window_bits),
        _bound(wanted.client_max_window_bits),
    )
    protocol = ServerProtocol(extensions=[factory], logger=QUIET)
    try:
        header, chosen = protocol.process_extensions(request.headers)
    except (InvalidHeader, InvalidHeaderFormat):
        raise Refusal(400, "malformed Sec-WebSocket-Extensions header") from None
    except ValueError:  # older versions of the library accept a window that zlib does not have
        return None, None
    if not chosen:
        return None, None
    extension = cast("PerMessageDeflate", chosen[0])
    return header, _negotiated(extension, wanted, wanted.server_max_window_bits, False)


def _details(compression: Compression) -> Deflate:
    return Deflate() if compression == "deflate" else compression


def _bound(window_bits: int) -> int | None:
    return None if window_bits == LARGEST else window_bits


def _negotiated(
    chosen: PerMessageDeflate, wanted: Deflate, own_window_bits: int, own_no_context_takeover: bool
) -> Negotiated:
    """For the core. Our own messages never take more memory than we wanted, whatever the peer would bear."""
    return (
        min(chosen.local_max_window_bits, own_window_bits),
        not (chosen.local_no_context_takeover or own_no_context_takeover),
        chosen.remote_max_window_bits,
        not chosen.remote_no_context_takeover,
        wanted.threshold,
        wanted.level,
        wanted.memory_level,
    )
