"""Where replication goes on from, what of a VM is sent, and what a dry run shows of it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hoster.model.plan import GiveUp, Plan, Send, TakeSnapshot
from hoster.model.storage import Dataset, Mode, Role
from hoster.planning.refusals import TargetSite, Terms
from hoster.planning.replication import (
    Clearance,
    is_up_to_date,
    judge,
    preview,
    unmarked,
    why_taken,
)
from hoster.testing import dataset, guid_of, words
from tests.unit.planning.judging import (
    ENCRYPTS,
    SITE,
    TARGET,
    cleared,
    encrypted,
    partly,
    replica,
    subject,
)


@pytest.mark.parametrize(
    ("here", "there", "base"),
    [
        ("", None, ""),
        ("a b", None, ""),
        ("a b", "a!", "a"),
        ("a b", "a", "a"),
        ("#a b", "a!", "#a"),
        ("a b", "a! x", "a"),  # an extra version on the target that changed nothing is no obstacle
        ("a b", "x+9 a!", "a"),  # nor is one from before the base, whatever it holds
        ("a c", "a! b!", "a"),
    ],
)
def test_replication_goes_ahead_from_the_newest_common_version(
    here: str, there: str | None, base: str
) -> None:
    clearance = cleared(subject(here), None if there is None else replica(there))
    (part,) = clearance.parts
    assert words([] if part.base is None else [part.base]) == base
    assert part.target == TARGET


@pytest.mark.parametrize(
    ("history", "needs"), [("", True), ("~5", True), ("a ~5", True), ("a", False), ("a+5 b", False)]
)
def test_a_snapshot_is_needed_only_where_something_was_written_since_the_newest(
    history: str, needs: bool
) -> None:
    assert cleared(subject(history), None).needs_snapshot is needs


@pytest.mark.parametrize(
    ("here", "there", "up_to_date"),
    [
        ("a@1", "a!", True),
        ("a@1 ~1", "a!", False),
        ("a@1 b", "a!", False),
        ("a", None, False),
        ("a", "a!", False),  # no anchor yet
        ("a@2", "a!", False),  # another target's
        ("a@1", "a", False),  # arrived, and not marked
        ("a@1 b@1", "a! b!", False),  # an anchor that is superseded
        ("#a@1", "a!", False),  # its snapshot was destroyed by hand: a new one takes its place
        ("a #b@1", "a! b!", True),
        ("a@1 b", "a! b!", False),  # arrived, and its anchor does not say so yet
        ("a@1", "x a!", True),
    ],
)
def test_up_to_date_means_nothing_to_send_and_nothing_to_put_right(
    here: str, there: str | None, up_to_date: bool
) -> None:
    clearance = cleared(subject(here), None if there is None else replica(there))
    assert is_up_to_date(clearance) is up_to_date


def test_unmarked_are_the_targets_versions_that_are_this_sources_by_guid() -> None:
    assert words(unmarked(dataset("a/b", "a b #c d"), replica("a! b x c d'"))) == "b c"


@pytest.mark.parametrize(
    ("history", "reason"),
    [("~8", "it has no snapshot yet"), ("manual ~8", "8 bytes were written since manual")],
)
def test_a_snapshot_says_why_it_is_taken(history: str, reason: str) -> None:
    assert why_taken(dataset("tank/vm/web", history)) == reason


def steps_of(plan: Plan) -> list[str]:
    """A plan in one line a step, each with the dataset's own name where it is not the VM's."""
    return [_step(step) for step in plan.steps]


def _step(step: object) -> str:
    match step:
        case TakeSnapshot(name, label, _):
            return f"take {_short(name)}{label}"
        case GiveUp(name, _):
            return f"give up {_short(name)}".strip()
        case Send(base, through, intermediate, name, _, _, mode, resume):
            reach = "-t" if resume else "-I" if intermediate else "-i"
            raw = "raw " if mode is Mode.RAW else ""
            return f"{raw}{reach} {_short(name)}{words([base]) if base else '-'} {through.name}"
    raise AssertionError(step)


def _short(name: str) -> str:
    return name.removeprefix(TARGET).removeprefix("/") + "/" if name != TARGET else ""


@pytest.mark.parametrize(
    ("here", "there", "steps"),
    [
        ("a b", "a", ["-I a b"]),
        ("a b", None, ["-i - a", "-I a b"]),
        ("~3", None, ["take new", "-i - new"]),
        ("a ~3", "a", ["take new", "-I a new"]),
        ("a b ~3", "a", ["take new", "-I a new"]),
        ("#a ~3", "a", ["take new", "-i #a new"]),
        ("a #b ~3", "a b", ["take new", "-i #b new"]),
        ("a", "a", []),
    ],
)
def test_a_dry_run_shows_the_snapshot_and_the_streams(here: str, there: str | None, steps: list[str]) -> None:
    found = subject(here)
    plan = preview(found, cleared(found, None if there is None else replica(there)), "new")
    assert steps_of(plan) == steps
    assert plan.vm == "web"
    assert plan.destroys == ()


def test_the_expected_snapshot_of_a_dry_run_holds_what_is_written_now() -> None:
    found = subject("a ~3")
    through = preview(found, cleared(found, replica("a")), "new").sends[-1].through
    assert (through.guid, through.written) == (0, 3)


def test_a_dry_run_shows_every_dataset_and_takes_their_snapshots_first() -> None:
    found = subject("a ~3", d0="a", d1="x ~2")
    plan = preview(found, cleared(found, replica("a"), replica("a", "d0")), "new")
    assert steps_of(plan) == [
        *("take new", "take d0/new", "take d1/new"),
        *("-I a new", "-I d0/a new", "-i d1/- x", "-I d1/x new"),
    ]


@pytest.mark.parametrize(
    ("here", "there", "steps"),
    [
        ("a b c", partly(replica("a"), "a", "b"), ["-t a b", "-I b c"]),
        ("a b", partly(replica("a"), "a", "b"), ["-t a b"]),
        ("a b", partly(replica(""), "-", "a"), ["-t - a", "-I a b"]),
        ("a c", partly(replica("a"), "a", "b"), ["give up /", "-I a c"]),
    ],
)
def test_a_dry_run_shows_what_becomes_of_a_stream_that_broke_off(
    here: str, there: Dataset, steps: list[str]
) -> None:
    found = subject(here)
    assert steps_of(preview(found, cleared(found, there), "new")) == [s.replace(" /", "") for s in steps]


def test_descendants_are_parts_of_their_own_and_the_vms_own_dataset_is_the_first() -> None:
    clearance = cleared(subject("a b", d0="a b", d1="x"), replica("a!"), replica("a! b!", "d0"))
    assert [(part.source.name, part.target) for part in clearance.parts] == [
        (f"{TARGET}{below}", f"{TARGET}{below}") for below in ("", "/d0", "/d1")
    ]
    assert [part.base and words([part.base]) for part in clearance.parts] == ["a", "b", None]
    assert clearance.parts[2].replica is None
    assert clearance.orphans == ()


def test_a_vm_that_lies_elsewhere_on_the_target_has_its_descendants_there() -> None:
    verdict = judge(subject("a", d0="a"), SITE, "backup/of/web", [])
    assert isinstance(verdict, Clearance)
    assert [part.target for part in verdict.parts] == ["backup/of/web", "backup/of/web/d0"]


@pytest.mark.parametrize(
    ("own", "below", "needs"), [("a", "a", False), ("a ~1", "a", True), ("a", "a ~1", True), ("a", "", True)]
)
def test_all_datasets_of_a_vm_are_snapshotted_if_any_of_them_was_written_to(
    own: str, below: str, needs: bool
) -> None:
    assert cleared(subject(own, d0=below)).needs_snapshot is needs


@pytest.mark.parametrize(
    ("below", "there", "up_to_date"),
    [
        ("a@1", "a!", True),
        ("a@1 ~1", "a!", False),
        ("a@1 b", "a!", False),
        ("a", "a!", False),
        ("a@1", "a", False),
        ("a@1", None, False),
    ],
)
def test_a_vm_is_up_to_date_only_if_all_of_its_datasets_are(
    below: str, there: str | None, up_to_date: bool
) -> None:
    theirs = None if there is None else replica(there, "d0")
    assert is_up_to_date(cleared(subject("a@1", d0=below), replica("a!"), theirs)) is up_to_date


def test_what_is_gone_here_is_kept_there_and_named() -> None:
    gone = [replica("x", "old"), replica("y", "old/deep"), replica("z", "d0/part")]
    clearance = cleared(subject("a@1", d0="a@1"), replica("a!"), replica("a!", "d0"), *gone)
    assert clearance.orphans == (f"{TARGET}/d0/part", f"{TARGET}/old", f"{TARGET}/old/deep")
    assert is_up_to_date(clearance)


@pytest.mark.parametrize(
    ("sealed", "no_raw", "modes"),
    [((), False, "plain plain"), (("d0",), False, "raw raw"), (("d0",), True, "plain plain")],
)
def test_what_is_encrypted_is_sent_raw_unless_that_is_forbidden(
    sealed: tuple[str, ...], no_raw: bool, modes: str
) -> None:
    here = subject("a", d0="a")
    if sealed:
        here = encrypted(here, *sealed)
    clearance = cleared(here, site=ENCRYPTS, terms=Terms(no_raw=no_raw))
    assert [part.mode for part in clearance.parts] == modes.split()
    assert [part.leg.mode for part in clearance.parts] == modes.split()


@pytest.mark.parametrize(
    ("site", "terms"), [(SITE, Terms(allow_plain_child=True)), (ENCRYPTS, Terms(no_raw=True))]
)
def test_a_plain_child_of_an_encrypted_vm_goes_where_it_may_or_where_it_gets_encrypted(
    site: TargetSite, terms: Terms
) -> None:
    clearance = cleared(encrypted(subject("a", d0="a")), site=site, terms=terms)
    assert clearance.parts[1].mode is Mode.PLAIN


def test_an_encrypted_child_of_a_plain_vm_is_sent_raw_beside_it() -> None:
    here = subject("a", d0="a")
    sealed = replace(here, descendants=tuple(replace(d, encrypted=True) for d in here.descendants))
    assert [part.mode for part in cleared(sealed).parts] == ["plain", "raw"]


def test_a_raw_stream_needs_no_key() -> None:
    assert cleared(encrypted(subject("a"), keys=False)).parts[0].mode is Mode.RAW


@pytest.mark.parametrize(
    ("mode", "sealed", "terms"),
    [
        (None, False, Terms()),
        (Mode.PLAIN, False, Terms()),
        (Mode.RAW, True, Terms()),
        (Mode.PLAIN, True, Terms(no_raw=True)),
        (None, True, Terms(no_raw=True)),
    ],
)
def test_a_replica_goes_on_in_the_mode_that_it_was_begun_with(
    mode: Mode | None, sealed: bool, terms: Terms
) -> None:
    here = encrypted(subject("a b")) if sealed else subject("a b")
    assert cleared(here, replica("a!", mode=mode), site=ENCRYPTS, terms=terms).parts[0].base is not None


def test_a_stream_that_broke_off_goes_on_and_the_replica_is_not_up_to_date_before_it_has() -> None:
    clearance = cleared(subject("a@1 b@1"), partly(replica("a!"), "a", "b"))
    (part,) = clearance.parts
    assert part.give_up == ""
    assert part.leg.partial is not None
    assert not is_up_to_date(clearance)


def test_a_part_does_not_go_on_where_something_was_taken_on_the_replica_since() -> None:
    there = partly(replica("a! x"), "a", "b")
    assert cleared(subject("a b"), there).parts[0].give_up == "x was taken there since"


def test_what_arrived_of_a_stream_that_cannot_go_on_is_given_up_even_if_nothing_is_left_to_send() -> None:
    clearance = cleared(subject("a@1"), partly(replica("a!"), "a", "gone"))
    assert clearance.parts[0].give_up == f"tank/vm/web@gone (guid {guid_of('gone'):016x}) is gone here"
    assert clearance.parts[0].leg.partial is None
    assert not is_up_to_date(clearance)


def test_a_first_stream_that_broke_off_is_no_replica_without_a_common_version() -> None:
    clearance = cleared(subject("a b"), partly(replica(""), "-", "a"))
    assert (clearance.parts[0].base, clearance.parts[0].give_up) == (None, "")


FORWARD = Terms(forward=True)


@pytest.mark.parametrize(("history", "up_to_date"), [("a@1 ~9", True), ("a@1 b", False), ("~9", True)])
def test_a_replica_that_is_passed_on_goes_as_it_is_and_gets_no_snapshot(
    history: str, up_to_date: bool
) -> None:
    there = [replica("a!")] if history.startswith("a") else []
    clearance = cleared(subject(history, Role.REPLICA), *there, terms=FORWARD)
    assert not clearance.needs_snapshot
    assert is_up_to_date(clearance) is up_to_date


def test_a_primary_gets_its_snapshot_where_replicas_are_passed_on_beside_it() -> None:
    assert cleared(subject("a@1 ~9"), replica("a!"), terms=FORWARD).needs_snapshot
