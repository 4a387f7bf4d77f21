"""The ZFS of one node, near or far: looks at it, and does single things to it.

Decides nothing. Every failure is a typed error with zfs's own words in it; a listing that failed, or came
back empty, is an error and never "there is nothing".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from hoster.errors import DatasetMissing, OperationFailed, ZfsError
from hoster.host.origin import is_gone
from hoster.host.process import Completed, Meter, Piped, Runner
from hoster.host.reach import Host
from hoster.model.plan import Anchor, Send
from hoster.model.storage import Bookmark, Dataset, Snapshot, View
from hoster.zfs import argv, keys, programs, receives
from hoster.zfs.batches import batches
from hoster.zfs.delegations import delegations
from hoster.zfs.failures import is_missing_only, zfs_error
from hoster.zfs.keys import KeyState
from hoster.zfs.parse import read_view
from hoster.zfs.programs import Answer, Telling, digits
from hoster.zfs.streams import HEAD_BYTES

LOOK_TIMEOUT_S = 600.0
"""How long a listing may print nothing; a suspended pool must not hang a run for ever."""


class SnapshotMark(Struct, frozen=True):
    """A user property to set on a snapshot that must still have its GUID."""

    snapshot: Snapshot
    key: str
    value: str


class ZfsStore:
    """ZFS on ``host``, whose commands ``runner`` runs."""

    def __init__(self, host: Host, runner: Runner) -> None:
        self._host = host
        self._runner = runner

    @property
    def node(self) -> str:
        return self._host.name

    @property
    def host(self) -> Host:
        """The node itself."""
        return self._host

    @property
    def machine(self) -> str:
        return self._host.machine

    def look(self, roots: Iterable[str]) -> View:
        """Everything at and below ``roots``, all of which must exist (DatasetMissing)."""
        view, completed = self._listed(argv.look(roots))
        if completed.returncode != 0:
            raise zfs_error(self.node, "listing", completed)
        return self._checked(view)

    def look_for(self, roots: Iterable[str]) -> View:
        """Everything at and below those of ``roots`` that exist."""
        return self._lenient(argv.look, roots)

    def look_at(self, datasets: Iterable[str]) -> View:
        """Those of ``datasets`` that exist, without their snapshots or what is below them."""
        return self._lenient(argv.look_at, datasets)

    def look_beside(self, parents: Iterable[str]) -> View:
        """Those of ``parents`` that exist and what lies directly in them, without snapshots."""
        return self._lenient(argv.look_beside, parents)

    def local_properties(self, datasets: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """The properties that are set on each of these datasets itself, none inherited or received."""
        printed = self._run(argv.local_properties(datasets), "reading local properties").stdout
        found: dict[str, dict[str, str]] = {name: {} for name in datasets}
        name = key = ""
        for line in printed.removesuffix("\n").split("\n"):
            fields = line.split("\t", 2)
            if len(fields) == 3 and fields[0] in found:
                name, key = fields[0], fields[1]
                found[name][key] = fields[2]
            elif key:  # a user property may hold newlines
                found[name][key] += "\n" + line
        return found

    def sync(self, pools: Iterable[str]) -> None:
        """Makes ``written`` count what was written up to now."""
        self._run(argv.sync(pools), "syncing the pool", LOOK_TIMEOUT_S)

    def take_snapshots(self, full_names: Sequence[str], properties: Mapping[str, str] | None = None) -> None:
        """Takes snapshots of one pool at one moment, or none of them. How many can be taken so, is told by
        :func:`hoster.zfs.batches.in_commands`."""
        self._run(argv.snapshot(full_names, properties or {}), "taking snapshots", LOOK_TIMEOUT_S)

    def set_properties(self, properties: Mapping[str, str], names: Sequence[str]) -> None:
        """Sets the same local values on all of ``names``."""
        self._run(argv.set_properties(properties, names), f"setting properties of {names[0]}")

    def inherit(self, key: str, names: Sequence[str]) -> None:
        """Takes a local value from all of ``names``."""
        self._run(argv.inherit(key, names), f"taking {key} from {names[0]}")

    def set_default(self, key: str, name: str) -> None:
        """Takes a local value of a property that is not inherited."""
        self._run(argv.set_default(key, name), f"setting {key} of {name} to its default")

    def clone(self, snapshot: str, name: str, properties: Mapping[str, str]) -> None:
        """Makes ``name`` a writable copy of a snapshot."""
        self._run(argv.clone(snapshot, name, properties), f"cloning {snapshot}")

    def promote(self, name: str) -> None:
        """Gives a clone the versions that it shares with its origin."""
        self._run(argv.promote(name), f"promoting {name}", LOOK_TIMEOUT_S)

    def rename(self, name: str, becomes: str) -> None:
        """Renames a dataset with all below it."""
        self._run(argv.rename(name, becomes), f"renaming {name}")

    def mount(self, name: str) -> None:
        """Mounts a filesystem; one that is mounted already is no error."""
        completed = self._runner.run(self._host.argv(argv.mount(name)), timeout_s=LOOK_TIMEOUT_S)
        if completed.returncode != 0 and "already mounted" not in completed.stderr:
            raise zfs_error(self.node, f"mounting {name}", completed)

    def unmount(self, name: str) -> None:
        """Unmounts a filesystem (DatasetBusy while it is in use); one that is not mounted is no error."""
        completed = self._runner.run(self._host.argv(argv.unmount(name)), timeout_s=LOOK_TIMEOUT_S)
        if completed.returncode != 0 and "not currently mounted" not in completed.stderr:
            raise zfs_error(self.node, f"unmounting {name}", completed)

    def rollback(self, snapshot: str) -> None:
        """Gives up what was written since ``snapshot``, which must be the newest version of its dataset."""
        self._run(argv.rollback(snapshot), f"rolling back to {snapshot}", LOOK_TIMEOUT_S)

    def bookmark(self, version: str, name: str) -> None:
        """Makes the bookmark ``name`` of a snapshot, or of a bookmark of the same dataset."""
        self._run(argv.bookmark(version, name), f"bookmarking {version}")

    def keys(self, datasets: Sequence[str]) -> tuple[KeyState, ...]:
        """The encryption roots that open these datasets, with the state of their keys."""
        if not datasets:
            return ()  # zfs get without a name is of everything there is
        printed = self._run(keys.listing(datasets), "reading the state of keys").stdout
        above = [name for name in keys.roots(printed) if name not in datasets]
        if above:
            printed += self._run(keys.listing(above), "reading the state of keys").stdout
        return keys.states(printed)

    def load_key(
        self,
        dataset: str,
        *,
        location: str | None = None,
        passphrase: str = "",
        only_try: bool = False,
    ) -> None:
        """Loads the key of an encryption root, or only tries it; ZfsError where it is not the right one."""
        command = keys.load(dataset, location, only_try=only_try)
        self._run(command, f"loading the key of {dataset}", stdin=f"{passphrase}\n")

    def unload_key(self, dataset: str) -> None:
        """Forgets the key of an encryption root; DatasetBusy while anything below it is mounted or open."""
        self._run(keys.unload(dataset), f"unloading the key of {dataset}")

    def destroy_dataset(self, name: str) -> None:
        """Destroys one dataset that has neither snapshots nor datasets below it; others stay as they are."""
        self._run(argv.destroy_dataset(name), f"destroying {name}", LOOK_TIMEOUT_S)

    def copy_delegations(self, name: str, to: str) -> None:
        """Allows on ``to`` what ``name`` itself allows (``zfs allow``)."""
        shown = self._run(argv.delegations(name), f"reading what {name} allows").stdout
        for words in delegations(name, shown):
            self._run(argv.allow(words, to), f"allowing on {to} what {name} allows")

    def create(self, name: str) -> None:
        """Makes a filesystem. AlreadyThere if there is a dataset of that name."""
        self._run(argv.create(name), f"creating {name}")

    def create_unmounted(self, dataset: str) -> None:
        """Makes ``dataset`` and what is missing above it; nothing gets mounted."""
        self._run(argv.create_unmounted(dataset), f"creating {dataset}")

    def destroy(self, victims: Sequence[Snapshot]) -> tuple[Answer, ...]:
        """Destroys exactly these, each only if it still has the GUID that was seen, in one transaction group
        for each pool; the answers say what became of each. What is busy stays, and is said."""
        items = [(v.full_name, digits(v.guid)) for v in victims]
        return self._programs(programs.DESTROY, items, "destroying snapshots")

    def destroy_bookmarks(self, victims: Sequence[Bookmark]) -> None:
        """Destroys these bookmarks, one by one; one that has gone already is no error."""
        for victim in victims:
            with contextlib.suppress(DatasetMissing):
                self._run(argv.destroy_bookmark(victim.full_name), f"destroying {victim.full_name}")

    def anchor(self, anchors: Sequence[Anchor]) -> tuple[Answer, ...]:
        """Bookmarks versions before they are sent; the answers hold the GUID and createtxg of each."""
        items = [(a.full_name, "-" if a.guid is None else digits(a.guid), str(a.target)) for a in anchors]
        return self._programs(programs.ANCHOR, items, "anchoring what is to be sent")

    def mark(self, marks: Sequence[SnapshotMark]) -> tuple[Answer, ...]:
        """Sets user properties on snapshots, each only if it still has the GUID that was seen."""
        items = [(m.snapshot.full_name, digits(m.snapshot.guid), m.key, m.value) for m in marks]
        return self._programs(programs.MARK, items, "marking snapshots")

    def tell(self, tellings: Sequence[Telling]) -> tuple[Answer, ...]:
        """Sets user properties on copies of VMs, each only if nobody has promoted it since, or told it of a
        promotion: looking and setting are one transaction."""
        items = [telling.item for telling in tellings]
        return self._programs(programs.TELL, items, "telling copies", programs.TELL_CHUNK)

    def send_argv(self, step: Send) -> tuple[str, ...]:
        """What to start here for the stream of ``step``."""
        return self._host.argv(argv.send(step))

    def receive_argv(self, step: Send, marks: Mapping[str, str]) -> tuple[str, ...]:
        """What to start here to receive ``step`` there; a dataset that is new gets ``marks``."""
        return self._host.argv(argv.receive(step, marks))

    def stream_head(self, step: Send) -> bytes:
        """The beginning of the stream of ``step``, which is started for it and ended again."""
        return self._runner.head(self.send_argv(step), HEAD_BYTES)

    def give_up_partial(self, target: str) -> None:
        """Gives up what has arrived of a stream that broke off; nothing to give up is no error."""
        completed = self._runner.run(self._host.argv(argv.give_up_partial(target)), timeout_s=LOOK_TIMEOUT_S)
        if completed.returncode != 0 and "does not have any resumable receive state" not in completed.stderr:
            raise zfs_error(self.node, f"giving up what has arrived of {target}", completed)

    def end_abandoned_receives(self, targets: Sequence[str]) -> tuple[str, ...]:
        """Ends the receives into ``targets`` that were begun from this machine by a hoster that is gone, and
        that have not heard of it; the targets. What has arrived is kept."""
        found = self._receives(lambda lines: receives.abandoned(lines, targets, is_gone))
        self.end_receives(found)
        return tuple(receive.target for receive in found)

    def receives_into(self, targets: Sequence[str]) -> tuple[receives.Receive, ...]:
        """The receives into ``targets`` that run, whoever sends."""
        return self._receives(lambda lines: receives.under_way(lines, targets))

    def end_receives(self, found: Sequence[receives.Receive]) -> None:
        """Ends these receives. What has arrived is kept."""
        if found:
            self._run(receives.ending(found), "ending receives", LOOK_TIMEOUT_S)

    def _receives(
        self, picked: Callable[[Iterable[str]], tuple[receives.Receive, ...]]
    ) -> tuple[receives.Receive, ...]:
        words = self._host.argv(receives.processes())
        found, listed = self._runner.read(words, picked, timeout_s=LOOK_TIMEOUT_S)
        if listed.returncode != 0:
            raise zfs_error(self.node, "looking for receives", listed)
        return found

    def hold(self, tag: str, snapshots: Sequence[str]) -> None:
        """Holds these snapshots, so that nobody destroys them."""
        for batch in batches(snapshots):
            self._run(argv.hold(tag, batch), "holding snapshots")

    def release(self, tag: str, snapshots: Sequence[str]) -> None:
        """Releases these snapshots; one that has gone is no error."""
        for batch in batches(snapshots):
            with contextlib.suppress(DatasetMissing):
                self._run(argv.release(tag, batch), "releasing snapshots")

    def holds(self, snapshots: Sequence[str]) -> frozenset[tuple[str, str]]:
        """The holds on those of these snapshots that exist: the full name of each, and the tag."""
        found: set[tuple[str, str]] = set()
        for batch in batches(snapshots):
            completed = self._runner.run(self._host.argv(argv.holds(batch)), timeout_s=120.0)
            if completed.returncode != 0 and not _is_whole_but_for_missing(completed):
                raise zfs_error(self.node, "listing holds", completed)
            rows = (line.split("\t") for line in completed.stdout.splitlines())
            found.update((row[0], row[1]) for row in rows if len(row) >= 2)
        return frozenset(found)

    def version(self) -> str:
        """The release of OpenZFS, as ``zfs version`` prints it first, without the leading ``zfs-``."""
        first = self._run(argv.version(), "asking for the version").stdout.strip().splitlines()
        return first[0].removeprefix("zfs-") if first else "unknown"

    def _programs(
        self, lua: str, items: Sequence[tuple[str, ...]], what: str, at_once: int = programs.CHUNK
    ) -> tuple[Answer, ...]:
        answers: list[Answer] = []
        for pool, of_pool in _by_pool(items).items():
            for chunk in programs.chunks(of_pool, at_once):
                arguments = [word for item in chunk for word in item]
                completed = self._run(argv.program(pool, arguments), what, LOOK_TIMEOUT_S, stdin=lua)
                answers.extend(programs.parse_answers(completed.stdout))
        return tuple(answers)

    def _run(self, command: Sequence[str], what: str, timeout_s: float = 120.0, stdin: str = "") -> Completed:
        completed = self._runner.run(self._host.argv(command), stdin=stdin, timeout_s=timeout_s)
        if completed.returncode != 0:
            raise zfs_error(self.node, what, completed)
        return completed

    def _lenient(self, listing: Callable[[Sequence[str]], Sequence[str]], names: Iterable[str]) -> View:
        """What ``listing`` gives of those of ``names`` that exist; more commands only where the names outgrow
        one command line."""
        datasets: dict[str, Dataset] = {}
        for batch in batches(names):
            view, completed = self._listed(listing(batch))
            if completed.returncode == 0:
                datasets |= self._checked(view).datasets
            elif _is_whole_but_for_missing(completed):
                datasets |= _sound(view).datasets
            else:
                raise zfs_error(self.node, "listing", completed)
        return View(self.node, datasets)

    def _listed(self, command: Sequence[str]) -> tuple[View | ZfsError, Completed]:
        """What is listed, parsed as it is printed, and how the command ended, which is to be looked at first:
        what one that failed has printed need not be whole."""

        def reader(lines: Iterator[str]) -> View | ZfsError:
            try:
                return read_view(self.node, lines)
            except ZfsError as error:
                return error

        return self._runner.read(self._host.argv(command), reader, timeout_s=LOOK_TIMEOUT_S)

    def _checked(self, found: View | ZfsError) -> View:
        view = _sound(found)
        if not view.datasets:
            raise ZfsError(f"{self.node}: listing: zfs printed nothing, which cannot be true")
        return view


def _sound(found: View | ZfsError) -> View:
    if isinstance(found, ZfsError):
        raise found
    return found


def transfer(
    runner: Runner,
    source: ZfsStore,
    target: ZfsStore,
    step: Send,
    marks: Mapping[str, str],
    meter: Meter,
) -> Piped:
    """Sends ``step`` from ``source`` into ``target``, which gets ``marks`` if it is new; a ZfsError if
    either end failed.

    That neither failed proves nothing yet: ``zfs receive`` exits 0 having received nothing where the
    snapshot is there already. What arrived is what is listed afterwards, by GUID.
    """
    piped = runner.pipe(source.send_argv(step), target.receive_argv(step, marks), meter)
    what = f"sending {step.through.full_name}"
    if piped.stalled:
        raise OperationFailed(f"{target.node}: {what}: {piped.ending.value}", hint="run it again: it goes on")
    for node, end in ((target.node, piped.consumer), (source.node, piped.producer)):
        if end.returncode != 0 and end.stderr.strip():
            raise zfs_error(node, what, end)
    for node, end in ((target.node, piped.consumer), (source.node, piped.producer)):
        if end.returncode != 0:
            raise zfs_error(node, what, end)
    return piped


def pool_of(name: str) -> str:
    """The pool that a dataset, snapshot or bookmark lies in."""
    for separator in "/@#":
        name = name.partition(separator)[0]
    return name


def _is_whole_but_for_missing(completed: Completed) -> bool:
    """Whether some of what was asked for does not exist, and all of the rest is there. Any other status than
    that of zfs itself means that something ended it in the middle: a signal, the connection."""
    return completed.returncode == 1 and is_missing_only(completed.stderr)


def missing(node: str, dataset: str) -> DatasetMissing:
    """The error for a dataset that a look did not find."""
    return DatasetMissing(f"{node}: {dataset} does not exist")


def _by_pool(items: Sequence[tuple[str, ...]]) -> dict[str, list[tuple[str, ...]]]:
    pools: dict[str, list[tuple[str, ...]]] = {}
    for item in items:
        pools.setdefault(pool_of(item[0]), []).append(item)
    return pools
