"""Defects planted into hoster, one at a time: the proof that the oracle can fail.

Each takes the place of one function of hoster's while a run lasts. A defect that no seed finds is a hole in
the oracle, or something that makes no difference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from hoster.model.anchors import needed_by_targets
from hoster.model.plan import DestroySnapshot, Refusal, Send
from hoster.model.storage import Dataset, Mode, Snapshot, Version
from hoster.operations import bookkeeping, sending, snapshots
from hoster.operations import replicate as replicating
from hoster.operations import rollback as rolling_back
from hoster.operations.job import Job, Passage
from hoster.planning import parting, refusals, replication, retention, transfers
from hoster.zfs import argv, parse
from hoster.zfs.store import ZfsStore
from tests.campaign.run import Result, run
from tests.zfsmodel import programs

Place = tuple[ModuleType | type, str]


@dataclass(frozen=True)
class Defect:
    """``instead`` makes the replacement from what stands in the first of ``places`` now."""

    name: str
    places: tuple[Place, ...]
    instead: Callable[[Any], Any]


def hunt(defect: Defect, first: int, runs: int) -> Result | None:
    """The first run from seed ``first`` on that notices the defect and is well without it."""
    for seed in range(first, first + runs):
        with planted(defect):
            result = run(seed)
        if result.failure and not run(seed).failure:
            result.trace = []
            return result
    return None


@contextlib.contextmanager
def planted(defect: Defect) -> Any:
    """The defect is there in this block."""
    owner, name = defect.places[0]
    made = defect.instead(getattr(owner, name))
    with contextlib.ExitStack() as stack:
        for where, what in defect.places:
            stack.enter_context(patch.object(where, what, made))
        yield


def _always(value: object) -> Callable[[Any], Any]:
    return lambda before: lambda *args, **kwargs: value


def _forced(before: Any) -> Any:
    def receive(step: Send, marks: dict[str, str]) -> tuple[str, ...]:
        words = before(step, marks)
        return (*words[:2], "-F", *words[2:])

    return receive


def _base_by_name(before: Any) -> Any:
    def common_base(source: Dataset, target: Dataset) -> Version | None:
        names = {one.name: one for one in source.snapshots}
        newest = sorted(target.snapshots, key=lambda one: one.createtxg, reverse=True)
        return next((names[one.name] for one in newest if one.name in names), None)

    return common_base


def _oldest_base(before: Any) -> Any:
    def common_base(source: Dataset, target: Dataset) -> Version | None:
        guids = {one.guid for one in target.snapshots}
        return next((one for one in source.snapshots if one.guid in guids), before(source, target))

    return common_base


def _believing(before: Any) -> Any:
    def verify(target: ZfsStore, jobs: Sequence[Job]) -> None:
        for job in jobs:
            for passage in job.passages:
                passage.replica = target.look_for([passage.target]).get(passage.target)
                passage.arrived = passage.chain

    return verify


def _careless(before: Any) -> Any:
    def transfer(*args: Any) -> None:
        with contextlib.suppress(Exception):
            before(*args)

    return transfer


def _no_anchors(before: Any) -> Any:
    def anchor(self: ZfsStore, anchors: Any) -> Any:
        answers = before(self, anchors)
        for one, answer in zip(anchors, answers, strict=False):
            if answer.done:
                guid, _ = answer.version
                with contextlib.suppress(Exception):
                    self._run(argv.destroy_bookmark(f"{one.dataset}#hoster-{one.target}-{guid:016x}"), "")
        return answers

    return anchor


def _inherited_marks(before: Any) -> Any:
    def rows(output: str) -> Any:
        for row in before(output):
            row.local.update({k: v for k, v in row.values.items() if k.startswith("hoster:") and v != "-"})
            yield row

    return rows


def _never_resumes(before: Any) -> Any:
    return lambda *args: "it is never gone on with"


def _ours(before: Any) -> Any:
    return lambda target, base, mode, vm_id: bool(transfers.ahead_of_base(target, base))


def _younger(before: Any) -> Any:
    def plan(dataset: Dataset, stype: Any, keep: int, **more: Any) -> Any:
        needed = needed_by_targets(dataset) | more.get("protected", frozenset())
        free = tuple(
            one
            for one in dataset.snapshots
            if not one.holds and not one.clones and one.guid not in needed and more.get("ours", _yes)(one)
        )
        amount = max(len(retention.typed(dataset, stype)) + more.get("incoming", 0) - keep, 0)
        victims = retention.typed(replace(dataset, snapshots=free), stype)[:amount]
        return retention.Retention(tuple(DestroySnapshot(one, "keep") for one in victims), ())

    return plan


def _yes(snapshot: Snapshot) -> bool:
    return True


def _destroying_swap(before: Any) -> Any:
    def swap(zfs: ZfsStore, root: str, stamp: str, wanted: Sequence[tuple[Dataset, Snapshot]]) -> str:
        for dataset, version in wanted:
            zfs.destroy([one for one in dataset.snapshots if one.createtxg > version.createtxg])
            with contextlib.suppress(Exception):
                zfs._run(("zfs", "rollback", version.full_name), "rolling back")
        return "nothing"

    return swap


def _swap_of_the_root(before: Any) -> Any:
    return lambda zfs, root, stamp, wanted: before(zfs, root, stamp, wanted[:1])


def _anybodys(before: Any) -> Any:
    def plan(replica: Dataset, keep: Any, *, newest_common: int, sent_by: str) -> Any:
        mine = tuple(replace(one, sent_by=f"{sent_by}/1") for one in replica.snapshots)
        return before(replace(replica, snapshots=mine), keep, newest_common=newest_common, sent_by=sent_by)

    return plan


def _base_pruned_there(before: Any) -> Any:
    def plan(replica: Dataset, keep: Any, *, newest_common: int, sent_by: str) -> Any:
        return before(replica, dict.fromkeys(keep, 1), newest_common=0, sent_by=sent_by)

    return plan


def _skipping(before: Any) -> Any:
    return lambda leg: tuple(replace(step, intermediate=False) for step in before(leg))


def _full_again(before: Any) -> Any:
    return lambda leg: before(replace(leg, partial=None))


def _keeping_one_more(before: Any) -> Any:
    def plan(dataset: Dataset, stype: Any, keep: int, **more: Any) -> Any:
        return before(dataset, stype, max(keep - 1, 1), **more)

    return plan


def _any_key(before: Any) -> Any:
    def check(source: ZfsStore, target: ZfsStore, job: Job, passage: Passage) -> Any:
        digest = before(source, target, job, passage)
        return "0" if isinstance(digest, Refusal) else digest

    return check


def _first_only(before: Any) -> Any:
    def send(context: Any, target: Any, job: Job, observer: Any, limit: Any) -> None:
        passages = job.passages
        job.passages = passages[:1]
        before(context, target, job, observer, limit)
        job.passages = passages

    return send


def _incomplete_is_done(before: Any) -> Any:
    def arrived(job: Job, passage: Passage) -> list[str]:
        before(job, passage)
        return []

    return arrived


_BASES: tuple[Place, ...] = (
    (transfers, "common_base"),
    (replication, "common_base"),
    (refusals, "common_base"),
    (parting, "common_base"),
    (bookkeeping, "common_base"),
)
_NEEDED: tuple[Place, ...] = ((retention, "needed_by_targets"), (snapshots, "needed_by_targets"))

DEFECTS: tuple[Defect, ...] = (
    Defect("receive is forced", ((argv, "receive"),), _forced),
    Defect("the base is found by name", _BASES, _base_by_name),
    Defect("the base is the oldest common version", _BASES, _oldest_base),
    Defect("nothing is held", ((ZfsStore, "hold"),), _always(None)),
    Defect("holds are not released", ((ZfsStore, "release"),), _always(None)),
    Defect("what was sent is taken for arrived", ((sending, "_verify"),), _believing),
    Defect("a failed stream is no failure", ((sending, "_arrived"),), _incomplete_is_done),
    Defect("what targets need is not protected", _NEEDED, _always(frozenset())),
    Defect("no anchors are made", ((ZfsStore, "anchor"),), _no_anchors),
    Defect("old anchors are kept for ever", ((bookkeeping, "superseded_anchors"),), _always(())),
    Defect("inherited marks count", ((parse, "_rows"),), _inherited_marks),
    Defect("a stream that broke off never goes on", ((replication, "continues_partial"),), _never_resumes),
    Defect("a stream that broke off is sent from its start", ((sending, "plan_sends"),), _full_again),
    Defect("what cannot go on is not given up", ((ZfsStore, "give_up_partial"),), _always(None)),
    Defect("versions of others count as sent from here", ((replication, "has_diverged"),), _ours),
    Defect("a rolled back VM is refused", ((replication, "has_diverged"),), _always(False)),
    Defect(
        "something younger dies for what is protected",
        ((snapshots, "plan_retention"), (bookkeeping, "plan_retention"), (retention, "plan_retention")),
        _younger,
    ),
    Defect("one too many is pruned", ((snapshots, "plan_retention"),), _keeping_one_more),
    Defect("a swap destroys what is newer", ((sending, "swap"),), _destroying_swap),
    Defect("a VM that goes back loses what is newer", ((rolling_back, "swap"),), _destroying_swap),
    Defect("a swap forgets what lies below", ((sending, "swap"),), _swap_of_the_root),
    Defect("a swap that was killed is not finished", ((replicating, "finish_left"),), _always({})),
    Defect(
        "on a target anybody's snapshots are pruned", ((bookkeeping, "plan_target_retention"),), _anybodys
    ),
    Defect("on a target the base is pruned", ((bookkeeping, "plan_target_retention"),), _base_pruned_there),
    Defect("only the newest version is sent", ((sending, "plan_sends"),), _skipping),
    Defect("only the VM's own dataset is sent", ((sending, "_send"),), _first_only),
    Defect("what arrives is not marked", ((ZfsStore, "mark"),), _always(())),
    Defect("datasets of others are taken over", ((refusals, "_not_ours"),), _always(None)),
    Defect(
        "somebody else's dataset goes along into a branch", ((parting, "_would_be_moved"),), _always(None)
    ),
    Defect("a changed key is carried over unasked", ((sending, "check_key"),), _any_key),
    Defect("what is encrypted is sent decrypted", ((refusals.Terms, "mode_of"),), _always(Mode.PLAIN)),
    Defect("plain data go below a raw replica unasked", ((refusals, "_would_be_readable"),), _always(None)),
    Defect("raw and plain streams are mixed", ((refusals, "_other_mode"),), _always(None)),
    Defect("a renamed dataset is sent again", ((replication, "refuse_renamed"),), _always(None)),
    Defect("a VM with any base is up to date", ((replicating, "is_up_to_date"),), _always(True)),
    Defect("the program destroys in spite of anchors", ((programs, "re"),), lambda before: _NoAnchors),
)


class _NoAnchors:
    """Stands for ``re`` in the model's program, so that no anchor is seen there."""

    @staticmethod
    def compile(pattern: str) -> Any:
        return type("Never", (), {"fullmatch": staticmethod(lambda name: None)})
