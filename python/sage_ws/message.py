"""The two values that travel: a `SecureMessage` asks, a `Response` answers.

The classes themselves belong to the core (frozen, hashable, picklable, with a repr that shows neither
payload nor signature), so that the native one makes them without a detour; this module is their home
for everything above it.
"""

from __future__ import annotations

from typing import TypeAlias

from sage_ws._core import Response, SecureMessage

Reply: TypeAlias = Response | bytes | None
"""What a handler may answer: a whole Response, the data of a success, or a success without data."""

__all__ = ["Reply", "Response", "SecureMessage"]
