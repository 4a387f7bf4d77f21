"""Gives a VM its identity, and writes marks as the user properties that they are."""

from __future__ import annotations

from uuid import uuid4

import msgspec

from hoster.model.storage import Epoch, Marks, Role


def first_marks(hostname: str, *, production: bool) -> Marks:
    """The marks of a VM that becomes hoster's: a new identity, primary here, in its first epoch."""
    return Marks(str(uuid4()), Role.PRIMARY, Epoch(1, hostname), hostname, production)


def origin_of(vm_id: str | None, epoch: Epoch | None) -> str:
    """What ``hoster:from`` says of a version that came whole: of which VM, from a source of which epoch."""
    return f"{vm_id}/{epoch.number if epoch else 0}"


def properties_of(marks: Marks) -> dict[str, str]:
    """``marks`` as user properties."""
    found = {
        "hoster:id": marks.vm_id,
        "hoster:role": marks.role.value if marks.role else None,
        "hoster:epoch": str(marks.epoch) if marks.epoch else None,
        "hoster:parent": marks.parent,
        "hoster:mode": marks.mode.value if marks.mode else None,
        "hoster:key": marks.key_digest,
        "hoster:swap": None if marks.swap is None else str(marks.swap),
        "hoster:demoted": "yes" if marks.demoted else None,
        "hoster:sites": msgspec.json.encode(marks.sites).decode() if marks.sites else None,
        "hoster:production": None if marks.production is None else "yes" if marks.production else "no",
    }
    return {key: value for key, value in found.items() if value is not None}
