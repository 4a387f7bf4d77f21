"""Loads the keys of an encrypted VM: from the configured place, from its own, or by asking a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hoster.errors import Refused, ZfsError
from hoster.model.vms import Vm
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


class Reopening:
    """Loads the keys of a VM again after it has gone back.

    ``zfs promote`` hands the place of an encryption root on to the clone, and leaves its key behind: it is
    not loaded any more (seen on OpenZFS 2.3.9). So what opens it must be known before anything is done.
    """

    def __init__(self, context: Context, vm: str, ask: AskForKey) -> None:
        self._context = context
        self._ask = ask
        self._passphrases: dict[str, str] = {}
        self._place = configured_place(context, vm)

    def prepare(self, vm: Vm) -> None:
        """Finds out how the keys that are loaded now can be loaded again, asking once where need be.

        Refused where one could not: its VM would be closed afterwards, with nobody there to open it.
        """
        own = {dataset.name for dataset in vm.everything}
        for key in self._context.zfs.keys([dataset.name for dataset in vm.everything if dataset.encrypted]):
            if key.name not in own or not key.loaded or key.name in self._passphrases:
                continue
            if self._place is None and key.location == "prompt":
                self._passphrases[key.name] = self._asked(key.name)
            else:
                self._try(key.name, "")

    def __call__(self, names: Sequence[str]) -> tuple[str, ...]:
        """Loads the keys of these datasets that are not loaded; the encryption roots that stay closed.

        Those are only left after a crash, by which what somebody had typed is forgotten.
        """
        closed: list[str] = []
        for key in self._context.zfs.keys(names):
            if key.loaded:
                continue
            passphrase = self._passphrases.get(key.name, "")
            known = passphrase or self._place is not None or key.location != "prompt"
            try:
                if known:
                    self._context.zfs.load_key(key.name, location=self._location(), passphrase=passphrase)
            except ZfsError:
                known = ""
            closed += [] if known else [key.name]
        return tuple(closed)

    def _asked(self, name: str) -> str:
        passphrase = self._ask(name)
        if passphrase is None:
            raise Refused(
                f"{name} has to be opened again once it has gone back, and nobody is here to be asked for its"
                " passphrase",
                hint="run it at a terminal; or set key-location in hoster.toml",
            )
        self._try(name, passphrase)
        return passphrase

    def _try(self, name: str, passphrase: str) -> None:
        try:
            self._context.zfs.load_key(name, location=self._location(), passphrase=passphrase, only_try=True)
        except ZfsError as error:
            raise Refused(
                f"{name} has to be opened again once it has gone back, and could not be: {error.message}",
                hint=f"zfs load-key -n {name}",
            ) from error

    def _location(self) -> str | None:
        return None if self._place is None else f"file://{self._place}"


def nobody(_dataset: str) -> None:
    """Asks nobody."""
