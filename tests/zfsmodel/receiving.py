"""``zfs receive``: the rules by which a stream is taken, refused, or left half done."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.zfsmodel.lineage import busy_number
from tests.zfsmodel.node import MISSING, ModelNode
from tests.zfsmodel.properties import NATIVES, is_user
from tests.zfsmodel.state import Dataset, Failed, Kind, Snapshot, Token, parent_of
from tests.zfsmodel.streams import Cut, Stream, Version, text_of

_UPGRADE = "kernel modules must be upgraded to receive this stream."
_IVSET = (
    "IV set guid mismatch. See the 'zfs receive' man page section\n"
    " discussing the limitations of raw encrypted send streams."
)


@dataclass(frozen=True, slots=True)
class Receive:
    """One ``zfs receive``: its target, its flags, the values of ``-o`` and the names of ``-x``."""

    target: str
    resumable: bool = False
    force: bool = False
    properties: dict[str, str] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    mount: bool = False


def receive(node: ModelNode, asked: Receive, stream: Stream | None, cut: Cut | None = None) -> str:
    """Takes ``stream`` in, as far as it comes; what is printed as a warning. Failed where it fails.

    Whole versions stay, whatever happens after them. With ``-s`` the one that was cut leaves a partial
    state, without it nothing. The values of ``-o`` stay if the first version came whole, or if it made the
    dataset and its partial state stays.
    """
    if stream is None or (cut is not None and not cut.versions and not cut.fraction):
        raise Failed("cannot receive: failed to read from stream")
    ignored = _ignored(asked, stream)
    for index, version in enumerate(stream.versions):
        fraction = 1.0 if cut is None or index < cut.versions else cut.fraction
        if not fraction:
            raise Failed("cannot receive: failed to read from stream")
        _One(node, asked, stream, version).take(fraction)
    return ignored


def _ignored(asked: Receive, stream: Stream) -> str:
    for key in asked.excluded:
        native = NATIVES.get(key)
        if native is not None and stream.kind not in native.kinds:
            return f"Warning: {asked.target}: property '{key}' does not apply to datasets of this type\n"
    return ""


@dataclass(frozen=True, slots=True)
class _One:
    """One version on its way into a node."""

    node: ModelNode
    asked: Receive
    stream: Stream
    version: Version

    @property
    def prefix(self) -> str:
        if self.stream.resumed:
            return "cannot receive resume stream"
        what = "incremental" if self.version.from_guid else "new filesystem"
        return f"cannot receive {what} stream"

    def take(self, fraction: float) -> None:
        target = self.node.datasets.get(self.asked.target)
        if self.stream.resumed:
            self._check_resume(target)
        elif self.version.from_guid:
            if target is None:
                raise self._failed(f"destination '{self.asked.target}' does not exist")
            if self._is_there(target):
                return
            self._check_increment(target)
        else:
            self._check_full(target)
        room = self.node.lacks_room(self.asked.target, self.version.size)
        if room:
            self._break_off(target, 0.5)
            raise self._failed(room)
        if fraction < 1:
            self._break_off(target, fraction)
            raise self._cut()
        self._complete(target)

    def _check_full(self, target: Dataset | None) -> None:
        name = self.asked.target
        if target is not None and not self.asked.force:
            raise self._failed(f"destination '{name}' exists\nmust specify -F to overwrite it")
        if target is not None and target.snapshots:
            eg = f"{name}@{target.snapshots[0].name}"
            raise self._failed(f"destination has snapshots (eg. {eg})\nmust destroy them to overwrite it")
        parent = self.node.datasets.get(parent_of(name))
        if parent is None:
            above = parent_of(name)
            raise Failed(f"{MISSING.format(above)}\n{self.prefix}: unable to restore to destination")
        if parent.kind is Kind.VOLUME:
            raise self._failed(f"parent '{parent.name}' is not a filesystem")
        for key in self.asked.properties:
            native = NATIVES.get(key)
            if native is not None and self.stream.kind not in native.kinds:
                raise self._failed(f"property '{key}' does not apply to datasets of this type")
        if parent.encrypted and not self.stream.raw and not self._stays_plain:
            if not parent.key_available:
                raise self._failed("inherited key must be loaded")
            if self.stream.embedded:
                raise self._failed("invalid backup stream")

    @property
    def _stays_plain(self) -> bool:
        return self.asked.properties.get("encryption") == "off"

    def _is_there(self, target: Dataset) -> bool:
        """Whether the version is there already, and is passed over."""
        found = target.find(self.version.name)
        if found is None or target.partial is not None:
            return False
        if target.by_guid(self.version.guid) is not None:
            return True
        raise Failed(f"cannot restore to {target.name}@{found.name}: destination already exists")

    def _check_increment(self, target: Dataset) -> None:
        if target.partial is not None:
            words = f'destination {target.name} contains partially-complete state from "zfs receive -s".'
            raise self._failed(words)
        if self.stream.raw and not target.encrypted:
            raise self._failed("cannot perform raw receive on top of existing unencrypted dataset")
        base = target.by_guid(self.version.from_guid)
        if base is None:
            raise self._failed(f"most recent snapshot of {target.name} does not\nmatch incremental source")
        if not self.asked.force:
            modified = target.content.digest != base.content.digest or target.written > 0
            if modified or (self.stream.raw and target.newest is not base):
                words = f"destination {target.name} has been modified\nsince most recent snapshot"
                raise self._failed(words)
        if target.encrypted and not self.stream.raw and not target.key_available:
            raise self._failed("inherited key must be loaded")
        if self.stream.raw and base.ivset != self.version.from_ivset:
            raise self._failed(_IVSET)

    def _check_resume(self, target: Dataset | None) -> None:
        if target is None:
            raise self._failed(f"destination '{self.asked.target}' does not exist")
        partial = target.partial
        if partial is None:
            raise self._failed(_UPGRADE if self.asked.resumable else "invalid backup stream")
        newest = target.newest
        base = newest.guid if newest is not None else 0
        # A snapshot that was there when the stream broke off is in nobody's way, one taken since is (2.3.9).
        if partial.to_guid != self.version.guid or target.partial_after != base:
            raise self._failed(_UPGRADE)

    def _break_off(self, target: Dataset | None, fraction: float) -> None:
        if not self.asked.resumable and not self.stream.resumed:
            return
        done = int(self.version.size * fraction)
        token = Token(
            self.version.full_name, self.version.guid, self.version.from_guid, done, self.stream.raw
        )
        if not self.version.from_guid and not self.stream.resumed:
            self.node.next_txg(self.asked.target)
            target = self._new_dataset()
            target.inconsistent = True
            target.written = 0
            self._settle(target)
        assert target is not None
        if self.asked.resumable:
            target.partial = token
            target.partial_after = target.newest.guid if target.newest is not None else 0
        else:
            self._give_up(target)

    def _give_up(self, target: Dataset) -> None:
        target.partial = None
        if target.inconsistent:
            del self.node.datasets[target.name]

    def _complete(self, target: Dataset | None) -> None:
        base = target.by_guid(self.version.from_guid) if target is not None else None
        if target is not None and self.asked.force:
            self._clear(target, base)
        self.node.next_txg(self.asked.target)
        if not self.version.from_guid and not self.stream.resumed:
            target = self._new_dataset()
            self.node.next_txg(target.name)
        assert target is not None
        written = self._written(target)
        target.partial, target.inconsistent = None, False
        target.content, target.written = self.version.content, written
        made = self.node.add_snapshot(f"{target.name}@{self.version.name}", self.version.guid, {})
        made.ivset = self.version.ivset if self.stream.raw else made.ivset
        if self.stream.raw and target.key_root is not None:  # not before the whole version has come
            target.key_root.wrapping = self.stream.wrapping
        self._settle(target)
        if self.asked.mount:
            self.node.mount(target)

    def _written(self, target: Dataset) -> int:
        newest = target.newest
        unchanged = newest is not None and newest.content.digest == self.version.content.digest
        return 0 if unchanged else self.version.content.referenced

    def _clear(self, target: Dataset, base: Snapshot | None) -> None:
        """``-F``: what is newer than the base goes, snapshots and live data."""
        doomed = target.since(base) if base is not None else list(target.snapshots)
        if any(busy_number(self.node, target, one) for one in doomed):
            raise self._failed("dataset is busy")
        for one in reversed(doomed):
            self.node.drop(target, one, "receive -F")
        if base is None or target.content.digest != base.content.digest:
            self.node.set_content(target, base.content if base else target.content, "receive -F")

    def _new_dataset(self) -> Dataset:
        parent = self.node.datasets[parent_of(self.asked.target)]
        made = self.node.new_dataset(self.asked.target, self.stream.kind)
        made.key_root = made if self.stream.raw else None if self._stays_plain else parent.key_root
        made.master, made.wrapping = self.stream.master, self.stream.wrapping
        if made.encrypted and not self.stream.raw:
            made.master = self.node.stamp(f"master key of {made.name}")
        if self.stream.kind is Kind.VOLUME:
            made.properties["volsize"] = self.stream.volsize
        self.node.datasets[made.name] = made
        return made

    def _settle(self, target: Dataset) -> None:
        settled = {key: value for key, value in self.asked.properties.items() if key != "encryption"}
        target.properties.update(settled)
        for key in self.asked.excluded:
            if is_user(key) or target.kind in NATIVES[key].kinds:
                target.properties.pop(key, None)

    def _cut(self) -> Failed:
        if not self.asked.resumable:
            return self._failed("incomplete stream")
        token = self.node.datasets[self.asked.target].partial
        assert token is not None
        return self._failed(
            "checksum mismatch or incomplete stream.\nPartially received snapshot is saved.\n"
            "A resuming stream can be generated on the sending system by running:\n"
            f"    zfs send -t {text_of(token)}"
        )

    def _failed(self, words: str) -> Failed:
        return Failed(f"{self.prefix}: {words}")
