"""Loads the keys of an encrypted VM: from the configured place, from its own, or by asking a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hoster.errors import Refused, ZfsError
from hoster.operations.context import Context

AskForKey = Callable[[str], str | None]
"""Asks a person for the passphrase of a dataset; None where nobody is there to answer."""


def load_keys(context: Context, vm: str, datasets: Sequence[str], ask: AskForKey) -> tuple[str, ...]:
    """Loads the keys of all encryption roots of these datasets; those that were loaded now.

    A key is taken from ``key-location`` of the settings where there is such a file, else from the dataset's
    own ``keylocation`` if that names one, else from ``ask``; what opened one of them is tried on the others.
    Refused where none of that opens it: never waits for somebody who is not there.
    """
    loaded: list[str] = []
    known: list[str] = []
    place = configured_place(context, vm)
    for key in context.zfs.keys(datasets):
        if key.loaded:
            continue
        if place is not None:
            _load(context, key.name, location=f"file://{place}")
        elif key.location != "prompt":
            _load(context, key.name)
        elif key.format != "passphrase":
            raise Refused(
                f"{key.name} is opened with a {key.format} key, which lies nowhere that this node knows of",
                hint=f"zfs load-key -L file:///PATH {key.name}; or set key-location in hoster.toml",
            )
        elif not any(_opens(context, key.name, passphrase) for passphrase in known):
            passphrase = ask(key.name)
            if passphrase is None:
                raise Refused(
                    f"the key of {key.name} is not loaded, and nobody is here to be asked for it",
                    hint=f"zfs load-key {key.name}; or set key-location in hoster.toml",
                )
            _load(context, key.name, passphrase=passphrase)
            known.append(passphrase)
        loaded.append(key.name)
    return tuple(loaded)


def configured_place(context: Context, vm: str) -> Path | None:
    """The file that holds the VM's key by the settings, if it is there."""
    pattern = context.settings.key_location
    if pattern is None:
        return None
    path = Path(pattern.replace("{vm}", vm))
    return path if path.is_file() else None


def _load(context: Context, dataset: str, *, location: str | None = None, passphrase: str = "") -> None:
    try:
        context.zfs.load_key(dataset, location=location, passphrase=passphrase)
    except ZfsError as error:
        raise Refused(
            f"{dataset} could not be opened: {error.message}", hint=f"zfs load-key {dataset}"
        ) from error


def _opens(context: Context, dataset: str, passphrase: str) -> bool:
    try:
        context.zfs.load_key(dataset, location=None, passphrase=passphrase)
    except ZfsError:
        return False
    return True
