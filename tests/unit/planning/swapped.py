"""A pool in memory on which the steps of a swap are carried out, and cut, for the tests beside this."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from hypothesis import strategies as st
from msgspec.structs import replace

from hoster.model.storage import Bookmark, Dataset, DatasetKind, Intent, Role
from hoster.planning.promotions import DropBookmark, KeepBookmark, Promote
from hoster.planning.swap import Clone, Forget, Rename, Settle, SwapStep, plan_swap
from hoster.testing import dataset, guid_of

ROOT = "tank/vm/web"
STAMP = "20240101T120000Z"

_HISTORIES = ("a", "a b", "a b c", "manual a b c #c", "#x a@1 b@1 c", "c b a ~7")


def intended(one: Dataset, word: str, stamp: str = STAMP) -> Dataset:
    """``one`` with the intent to go back to the version written ``word``."""
    return replace(one, marks=replace(one.marks, swap=Intent(stamp, guid_of(word), "-", ROOT)))


@dataclass
class Pool:
    """Datasets by name, their local properties, and the versions that they are to go back to."""

    datasets: dict[str, Dataset]
    local: dict[str, dict[str, str]]
    wanted: dict[str, str] = field(default_factory=dict)

    def copy(self) -> Pool:
        """The same pool, to compare with."""
        return Pool(dict(self.datasets), {name: dict(of) for name, of in self.local.items()}, self.wanted)

    def intend(self, at_most: int | None = None) -> dict[str, int]:
        """Writes intents, the VM's own dataset last, and so many at most; what was written."""
        done: dict[str, int] = {}
        for name in islice(sorted(self.wanted, reverse=True), at_most):
            self.datasets[name] = intended(self.datasets[name], self.wanted[name])
            done[name] = guid_of(self.wanted[name])
        return done

    def intend_restore(self, branch: str, stamp: str) -> None:
        """Writes the intents for a branch, by its stamp, to be the VM again."""
        for name in sorted(self.of(ROOT), reverse=True):
            intent = Intent(stamp, 0, "-", ROOT, restores=branch)
            self.datasets[name] = replace(
                self.datasets[name], marks=replace(self.datasets[name].marks, swap=intent)
            )

    def of(self, root: str) -> dict[str, Dataset]:
        """The datasets at and below ``root``."""
        return {n: d for n, d in self.datasets.items() if n == root or n.startswith(f"{root}/")}

    def finish(self, cut: int | None = None, stamp: str = STAMP) -> None:
        """Plans from what is there and carries that out, or no more than ``cut`` single effects of it."""
        if not any(one.marks.swap for one in self.datasets.values()):
            return
        steps = plan_swap(ROOT, stamp, tuple(self.datasets.values()), self.local)
        effects = (effect for step in steps for effect in self._effects(step))
        for effect in islice(effects, cut):
            effect()

    def _effects(self, step: SwapStep) -> Iterator[Callable[[], None]]:
        match step:
            case Clone():
                yield lambda: self._clone(step)
            case Promote(name):
                yield lambda: self._promote(name)
            case Rename(name, becomes):
                yield lambda: self._rename(name, becomes)
            case Forget(intents):
                for name in intents:
                    yield lambda name=name: self._forget(name)  # type: ignore[misc]
            case KeepBookmark(bookmark, name):
                yield lambda: self._keep(bookmark, name)
            case DropBookmark(bookmark):
                yield lambda: self._drop(bookmark)
            case Settle(root, branch, intents):
                if step.restored:
                    yield lambda: self._unmark(root)
                yield lambda: self._mark(branch)
                for name in sorted(intents, reverse=True):
                    yield lambda name=name: self._forget(name)  # type: ignore[misc]
            case _:
                raise AssertionError(f"nothing is mounted here, or rolled back in place: {step}")

    def _clone(self, step: Clone) -> None:
        assert step.name not in self.datasets
        assert step.name.rpartition("/")[0] in {*self.datasets, "tank/vm"}
        owner = self.datasets[step.snapshot.partition("@")[0]]
        assert step.snapshot in {s.full_name for s in owner.snapshots}
        self.datasets[step.name] = Dataset(
            step.name, owner.kind, guid_of(step.name), createtxg=1, origin=step.snapshot
        )
        self.local[step.name] = dict(step.properties)

    def _promote(self, name: str) -> None:
        clone = self.datasets[name]
        assert clone.origin is not None
        owner = self.datasets[clone.origin.partition("@")[0]]
        origin = next(s for s in owner.snapshots if s.full_name == clone.origin)
        shared = tuple(s for s in owner.snapshots if s.createtxg <= origin.createtxg)
        marks = tuple(b for b in owner.bookmarks if b.createtxg <= origin.createtxg)
        assert not {b.name for b in clone.bookmarks} & {b.name for b in marks}, "the kernel panics"
        assert not {s.name for s in clone.snapshots} & {s.name for s in shared}, "they are in conflict"
        self.datasets[name] = replace(
            clone,
            origin=owner.origin,
            snapshots=(*(replace(s, dataset=name) for s in shared), *clone.snapshots),
            bookmarks=(*(replace(b, dataset=name) for b in marks), *clone.bookmarks),
        )
        self.datasets[owner.name] = replace(
            owner,
            origin=f"{name}@{origin.name}",
            snapshots=tuple(s for s in owner.snapshots if s not in shared),
            bookmarks=tuple(b for b in owner.bookmarks if b not in marks),
        )

    def _rename(self, name: str, becomes: str) -> None:
        assert name in self.datasets
        assert becomes not in self.datasets
        self.datasets = {_moved(of, name, becomes): d for of, d in self.datasets.items()}
        self.local = {_moved(of, name, becomes): found for of, found in self.local.items()}
        for of, one in self.datasets.items():
            self.datasets[of] = replace(
                one,
                name=of,
                origin=one.origin and _moved(one.origin, name, becomes),
                snapshots=tuple(replace(s, dataset=of) for s in one.snapshots),
                bookmarks=tuple(Bookmark(of, b.name, b.guid, b.createtxg) for b in one.bookmarks),
            )

    def _keep(self, bookmark: Bookmark, name: str) -> None:
        one = self.datasets[bookmark.dataset]
        assert name not in {b.name for b in one.bookmarks}
        self.datasets[one.name] = replace(one, bookmarks=(*one.bookmarks, replace(bookmark, name=name)))

    def _drop(self, bookmark: Bookmark) -> None:
        one = self.datasets[bookmark.dataset]
        assert bookmark in one.bookmarks
        left = tuple(b for b in one.bookmarks if b != bookmark)
        self.datasets[one.name] = replace(one, bookmarks=left)

    def _mark(self, name: str) -> None:
        self.local[name].update({"hoster:role": "branch"})
        one = self.datasets[name]
        self.datasets[name] = replace(one, marks=replace(one.marks, role=Role.BRANCH))

    def _unmark(self, name: str) -> None:
        self.local[name].pop("hoster:role", None)
        one = self.datasets[name]
        self.datasets[name] = replace(one, marks=replace(one.marks, role=None))

    def _forget(self, name: str) -> None:
        one = self.datasets[name]
        self.datasets[name] = replace(one, marks=replace(one.marks, swap=None))


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """A VM with up to three datasets below it, each of which may be left behind with all below it."""
    pool = Pool({}, {})
    for name in (ROOT, f"{ROOT}/d0", f"{ROOT}/d0/part", f"{ROOT}/d1"):
        parent = name.rpartition("/")[0]
        if name != ROOT and (parent not in pool.datasets or not draw(st.booleans())):
            continue
        history = draw(st.sampled_from(_HISTORIES))
        kind = DatasetKind.VOLUME if name == f"{ROOT}/d1" else DatasetKind.FILESYSTEM
        pool.datasets[name] = dataset(name, history, kind=kind)
        pool.local[name] = {"compression": "zstd"}
        if name == ROOT or (parent in pool.wanted and draw(st.booleans())):
            versions = [word.partition("@")[0] for word in history.split() if word[0] not in "#~"]
            pool.wanted[name] = draw(st.sampled_from(versions))
    return pool


def _moved(name: str, old: str, new: str) -> str:
    inside = name == old or name.startswith((f"{old}/", f"{old}@"))
    return new + name.removeprefix(old) if inside else name
