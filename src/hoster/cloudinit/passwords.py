"""Passwords and identities for VMs, from the system's cryptographic source."""

from __future__ import annotations

import secrets
import string

from msgspec import Struct

ACCOUNT_PASSWORD_LENGTH = 34
"""As long as Hoster's: about 200 bits."""

VNC_PASSWORD_LENGTH = 8
"""All that the protocol looks at (RFC 6143, 7.2.2)."""

_ALPHABET = string.ascii_letters + string.digits
_ID_ALPHABET = string.ascii_lowercase + string.digits
_ID_LENGTH = 12


class Secrets(Struct, frozen=True):
    """The passwords of one VM: of its two accounts, and of its screen."""

    root: str
    gwitsuper: str
    vnc: str

    def __repr__(self) -> str:
        """None of them: they must not get into a log by way of an error."""
        return "Secrets(…)"


def new_secrets() -> Secrets:
    """Three passwords of letters and digits, each by itself."""
    return Secrets(
        root=_by_chance(_ALPHABET, ACCOUNT_PASSWORD_LENGTH),
        gwitsuper=_by_chance(_ALPHABET, ACCOUNT_PASSWORD_LENGTH),
        vnc=_by_chance(_ALPHABET, VNC_PASSWORD_LENGTH),
    )


def new_instance_id() -> str:
    """An instance id that no VM has had: a guest that sees another one than before sets itself up anew."""
    return f"iid-{_by_chance(_ID_ALPHABET, _ID_LENGTH)}"


def _by_chance(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))
