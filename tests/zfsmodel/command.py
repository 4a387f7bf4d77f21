"""The command line of a model node: argv in, status and both outputs out.

It knows the forms that hoster uses and those that tests use beside them (``zfs allow`` shows that nothing
is delegated, and changes nothing); any other raises :class:`UnknownCommand`, which is a fault of the test or
of the model, never of what is tested.
"""

from __future__ import annotations

import getopt
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random

from tests.zfsmodel.lineage import abort_receive, clone, destroy, promote, rename, rollback
from tests.zfsmodel.listing import Question, got, holds, listed, types_of
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.programs import run_program
from tests.zfsmodel.properties import NATIVES, check_value, size_of, value_of
from tests.zfsmodel.receiving import Receive, receive
from tests.zfsmodel.state import Failed, Kind, split
from tests.zfsmodel.streams import Cut, Stream, described, send, send_resumed

Said = tuple[int, str, str]
"""Status, standard output, standard error."""

_ALWAYS: Mapping[tuple[str, ...], str] = {
    ("zfs", "version"): "zfs-2.3.9-1\nzfs-kmod-2.3.9-1\n",
    # Commands of the model end with the call that runs them: no process is ever left.
    ("ps", "axeww", "-o", "pid,command"): "  PID COMMAND\n",
}


class UnknownCommand(AssertionError):
    """The model does not know this command."""


def command(node: ModelNode, argv: Sequence[str], stdin: str = "", shuffle: Random | None = None) -> Said:
    """Runs one command that is no end of a stream. ``shuffle`` orders what ``zfs get`` prints."""
    try:
        match tuple(argv):
            case ("zpool", *words):
                return _zpool(node, words)
            case words if words in _ALWAYS:
                return 0, _ALWAYS[words], ""
            case ("zfs", "program", "-j", pool, "-", *words):
                return 0, run_program(node, pool, stdin, words), ""
            case ("zfs", "get", *words):
                return got(node, _question(words, get=True), shuffle)
            case ("zfs", "list", *words):
                return listed(node, _question(words, get=False))
            case ("zfs", "holds", ("-H" | "-Hp"), *names):
                return holds(node, names)
            case ("zfs", "send", "-nvt", token):
                return 0, described(node, token), ""
            case ("zfs", "receive", "-A", name):
                abort_receive(node, name)
            case ("write", name, amount):
                node.write(name, int(amount))
            case ("zfs", verb, *words) if verb in _VERBS:
                _VERBS[verb](node, words)
            case _:
                raise UnknownCommand(" ".join(argv))
    except Failed as error:
        return error.status, "", f"{error.said}\n"
    return 0, "", ""


def sent(node: ModelNode, argv: Sequence[str]) -> Stream:
    """The stream of a ``zfs send``; Failed with its words if there is none."""
    if tuple(argv[:2]) != ("zfs", "send"):
        raise UnknownCommand(" ".join(argv))
    flags, names = getopt.getopt(list(argv[2:]), "wLcei:I:t:")
    options = dict(flags)
    if "-t" in options:
        return send_resumed(node, options["-t"])
    if len(names) != 1:
        raise UnknownCommand(" ".join(argv))
    base = options.get("-I") or options.get("-i", "")
    return send(
        node,
        base,
        names[0],
        intermediate="-I" in options,
        raw="-w" in options,
        embedded="-e" in options,
    )


def received(node: ModelNode, argv: Sequence[str], stream: Stream | None, cut: Cut | None = None) -> Said:
    """A ``zfs receive`` of ``stream``, which ends early at ``cut``; None stands for no stream at all."""
    if tuple(argv[:2]) != ("zfs", "receive"):
        raise UnknownCommand(" ".join(argv))
    flags, names = getopt.getopt(list(argv[2:]), "suFo:x:")
    if len(names) != 1:
        raise UnknownCommand(" ".join(argv))
    words = [flag for flag, _ in flags]
    asked = Receive(
        names[0],
        resumable="-s" in words,
        force="-F" in words,
        properties=_pairs(value for flag, value in flags if flag == "-o"),
        excluded=tuple(value for flag, value in flags if flag == "-x"),
        mount="-u" not in words,
    )
    try:
        return 0, "", receive(node, asked, stream, cut)
    except Failed as error:
        return error.status, "", f"{error.said}\n"


def _zpool(node: ModelNode, words: Sequence[str]) -> Said:
    match words:
        case ["sync", *pools]:
            return _sync(node, pools)
        case ["list", "-Hp", "-o", _, *pools]:
            return _pools(node, pools)
        case ["status", *pools]:
            return 0, "".join(f"  pool: {pool}\n state: ONLINE\n" for pool in pools), ""
        case _:
            raise UnknownCommand(" ".join(("zpool", *words)))


def _sync(node: ModelNode, pools: Sequence[str]) -> Said:
    missing = [pool for pool in pools if pool not in node.pools]
    return int(bool(missing)), "", "".join(f"cannot open '{pool}': no such pool\n" for pool in missing)


def _pools(node: ModelNode, pools: Sequence[str]) -> Said:
    """Pools of the model are half full, and never change in that."""
    missing, _, errors = _sync(node, pools)
    lines = (f"{pool}\t1000\t500\t500\t7\t50\t1.00\tONLINE\n" for pool in pools if pool in node.pools)
    return missing, "".join(lines), errors


def _question(words: Sequence[str], *, get: bool) -> Question:
    flags, rest = getopt.getopt(list(words), "Hprd:t:o:s:")
    asked = Question(columns=("name", "property", "value", "source") if get else ("name",))
    for flag, value in flags:
        match flag:
            case "-r":
                asked.depth = None
            case "-d":
                asked.depth = int(value)
            case "-t":
                asked.types = types_of(value)
            case "-o":
                asked.columns = tuple(value.split(","))
            case "-s" if get:
                asked.sources = tuple(value.split(","))
            case "-s":
                asked.sort = value
    if get:
        asked.keys, rest = tuple(rest[0].split(",")), rest[1:]
    asked.roots = rest
    if not rest:
        asked.depth = None
    return asked


def _pairs(settings: Iterable[str]) -> dict[str, str]:
    return {key: value for key, _, value in (setting.partition("=") for setting in settings)}


def _create(node: ModelNode, words: Sequence[str]) -> None:
    flags, names = getopt.getopt(list(words), "po:V:")
    properties = _pairs(value for flag, value in flags if flag == "-o")
    sizes = [value for flag, value in flags if flag == "-V"]
    if sizes:
        properties["volsize"] = str(size_of(sizes[0]))
    kind = Kind.VOLUME if sizes else Kind.FILESYSTEM
    node.create(names[0], properties, kind, parents=("-p", "") in flags)


def _snapshot(node: ModelNode, words: Sequence[str]) -> None:
    flags, names = getopt.getopt(list(words), "ro:")
    wanted, recursive = list(names), ("-r", "") in flags
    if recursive:
        for full_name in names:
            name, _, short = split(full_name)
            wanted += [f"{one.name}@{short}" for one in node.below(name) if not one.inconsistent]
    properties = _pairs(value for flag, value in flags if flag == "-o")
    node.snapshot(wanted, properties, recursive=recursive)


def _clone(node: ModelNode, words: Sequence[str]) -> None:
    flags, (source, target) = getopt.getopt(list(words), "o:")
    clone(node, source, target, _pairs(value for _, value in flags))


def _set(node: ModelNode, words: Sequence[str]) -> None:
    """Each of the names by itself: one that does not exist keeps the others from nothing."""
    settings = _pairs(word for word in words if "=" in word)
    said = []
    for name in (word for word in words if "=" not in word):
        try:
            _set_one(node, name, settings)
        except Failed as error:
            if error.status != 1:
                raise
            said.append(error.said)
    if said:
        raise Failed("\n".join(said))


def _set_one(node: ModelNode, name: str, settings: Mapping[str, str]) -> None:
    if split(name)[1] == "@":
        _, snapshot = node.snapshot_named(name)
        for key in settings:
            if ":" not in key:
                refused = f"cannot set property for '{name}'"
                raise Failed(f"{refused}: this property can not be modified for snapshots", 255)
        snapshot.properties.update(settings)
        return
    dataset = node.dataset(name)
    for key, value in settings.items():
        check_value(key, value, dataset.kind, f"cannot set property for '{name}'", 255)
        if key == "quota" and 0 < size_of(value) < node.used(name):
            words = "size is less than current used or reserved space"
            raise Failed(f"cannot set property for '{name}': {words}", 255)
    dataset.properties.update(settings)


def _inherit(node: ModelNode, words: Sequence[str]) -> None:
    """What is not inherited goes back to its default only with ``-S`` (zfs-inherit(8))."""
    flags, (key, *names) = getopt.getopt(list(words), "S")
    if not flags and key in NATIVES and not NATIVES[key].inherited:
        raise Failed(f"'{key}' property cannot be inherited")
    for name in names:
        if split(name)[1] == "@":
            node.snapshot_named(name)[1].properties.pop(key, None)
        else:
            node.dataset(name).properties.pop(key, None)


def _mount(node: ModelNode, words: Sequence[str]) -> None:
    dataset = node.dataset(words[0])
    if dataset.mounted:
        raise Failed(f"cannot mount '{dataset.name}': filesystem already mounted")
    if not dataset.key_available:
        raise Failed(f"cannot mount '{dataset.name}': encryption key not loaded")
    dataset.mounted = True


def _unmount(node: ModelNode, words: Sequence[str]) -> None:
    dataset = node.dataset(words[0])
    if not dataset.mounted:
        raise Failed(f"cannot unmount '{dataset.name}': not currently mounted")
    if dataset.busy:
        where = value_of(node.datasets, dataset, "mountpoint").text
        raise Failed(f"cannot unmount '{where}': pool or dataset is busy")
    dataset.mounted = False


def _load_key(node: ModelNode, words: Sequence[str]) -> None:
    """Any key location will do: the model's keys are always right."""
    dataset = node.dataset(words[-1])
    if dataset.key_root is not dataset:
        root = dataset.key_root.name if dataset.key_root is not None else ""
        raise Failed(
            f"Key load error: Keys must be loaded for encryption root of '{dataset.name}' ({root}).", 255
        )
    if dataset.key_loaded:
        raise Failed(f"Key load error: Key already loaded for '{dataset.name}'.", 255)
    dataset.key_loaded = True


def _unload_key(node: ModelNode, words: Sequence[str]) -> None:
    dataset = node.dataset(words[-1])
    if dataset.key_root is None:
        raise Failed(f"Key unload error: '{dataset.name}' is not encrypted.", 255)
    if dataset.key_root is not dataset:
        root = dataset.key_root.name
        raise Failed(
            f"Key unload error: Keys must be unloaded for encryption root of '{dataset.name}' ({root}).", 255
        )
    if not dataset.key_loaded:
        raise Failed(f"Key unload error: Key already unloaded for '{dataset.name}'.", 255)
    if any(one.mounted for one in node.datasets.values() if one.key_root is dataset):
        raise Failed(f"Key unload error: '{dataset.name}' is busy.", 255)
    dataset.key_loaded = False


def _change_key(node: ModelNode, words: Sequence[str]) -> None:
    """Gives an encryption root another key. The same of what only inherits one is not in the model."""
    dataset = node.dataset(words[-1])
    if dataset.key_root is None:
        raise Failed("Key change error: Dataset not encrypted.", 255)
    if not dataset.key_available:
        raise Failed("Key change error: Key must be loaded.", 255)
    if dataset.key_root is not dataset:
        raise UnknownCommand(f"zfs change-key {dataset.name}, which inherits its key")
    dataset.wrapping = node.stamp(f"key of {dataset.name}")


_VERBS: dict[str, Callable[[ModelNode, Sequence[str]], object]] = {
    "create": _create,
    "snapshot": _snapshot,
    "clone": _clone,
    "set": _set,
    "inherit": _inherit,
    "mount": _mount,
    "unmount": _unmount,
    "load-key": _load_key,
    "unload-key": _unload_key,
    "change-key": _change_key,
    "allow": lambda node, words: node.dataset(words[-1]),
    "rename": lambda node, words: rename(node, words[0], words[1]),
    "hold": lambda node, words: node.hold(words[0], words[1:]),
    "release": lambda node, words: node.release(words[0], words[1:]),
    "bookmark": lambda node, words: node.bookmark(words[0], words[1]),
    "promote": lambda node, words: promote(node, words[0]),
    "rollback": lambda node, words: rollback(node, words[0]),
    "destroy": lambda node, words: destroy(node, words[0]),
}
