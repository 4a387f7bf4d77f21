"""Whether a VM may be replicated: every ground for a refusal, with its evidence and its remedy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from hoster.model.anchors import TargetKey
from hoster.model.plan import Ground, Plan, Refusal, Send, TakeSnapshot
from hoster.model.storage import Dataset, Epoch, Marks, Role
from hoster.planning.replication import (
    Clearance,
    Subject,
    TargetSite,
    is_up_to_date,
    judge,
    preview,
    unmarked,
    why_taken,
)
from hoster.testing import VM_ID, dataset, guid_of, target_key, words

SITE = TargetSite("backup1", "tank/vm", target_key("1").guid)
TARGET = "tank/vm/web"
OTHER_A, OTHER_B = guid_of("a'"), guid_of("b'")


def subject(history: str, role: Role = Role.PRIMARY) -> Subject:
    return Subject("web", dataset("tank/vm/web", history, role), role, "node1")


def replica(history: str) -> Dataset:
    return dataset(TARGET, history, Role.REPLICA)


def cleared(here: Subject, there: Dataset | None) -> Clearance:
    verdict = judge(here, SITE, TARGET, there)
    assert isinstance(verdict, Clearance), verdict
    return verdict


def refused(here: Subject, there: Dataset | None, site: TargetSite = SITE) -> Refusal:
    verdict = judge(here, site, TARGET, there)
    assert isinstance(verdict, Refusal), verdict
    assert verdict.vm == "web"
    return verdict


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
    assert words([] if clearance.base is None else [clearance.base]) == base
    assert clearance.target == TARGET


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
    found = subject(here)
    clearance = cleared(found, None if there is None else replica(there))
    assert is_up_to_date(found, clearance) is up_to_date


def test_unmarked_are_the_targets_versions_that_are_this_sources_by_guid() -> None:
    assert words(unmarked(dataset("a/b", "a b #c d"), replica("a! b x c d'"))) == "b c"


@pytest.mark.parametrize("role", [Role.REPLICA, Role.SUPERSEDED, Role.BRANCH])
def test_a_vm_marked_as_something_else_is_left_to_its_parent(role: Role) -> None:
    refusal = refused(subject("a", role), None)
    assert refusal.ground is Ground.IS_REPLICA
    assert refusal.evidence == f"here it is marked {role}; its parent is node1"
    assert refusal.remedy == "on node1: hoster vm replicate web --endpoint …"


def test_a_vm_without_marks_whose_file_names_another_parent_is_left_to_it() -> None:
    here = Subject("web", dataset("tank/vm/web", "a"), Role.REPLICA, "node9")
    refusal = refused(here, None)
    assert refusal.ground is Ground.IS_REPLICA
    assert refusal.evidence == "its parent_host is 'node9', so here it is a backup of that node's VM"
    assert refusal.remedy == "hoster vm adopt web --parent-was node9    (if this node runs it now)"


def test_a_vm_with_datasets_below_it_is_refused_by_name() -> None:
    refusal = refused(replace(subject("a"), descendants=("tank/vm/web/d0", "tank/vm/web/d1")), None)
    assert refusal.ground is Ground.UNSUPPORTED
    assert "tank/vm/web/d0, tank/vm/web/d1" in refusal.evidence
    assert "--filter" in refusal.remedy


def test_an_encrypted_vm_is_refused_before_anything_is_sent_in_clear() -> None:
    here = subject("a")
    refusal = refused(replace(here, dataset=replace(here.dataset, encrypted=True)), None)
    assert refusal.ground is Ground.UNSUPPORTED
    assert "tank/vm/web is encrypted" in refusal.evidence
    assert "--filter" in refusal.remedy


def test_the_pool_that_the_vm_lies_in_is_no_target() -> None:
    refusal = refused(subject("a"), None, replace(SITE, same_pool=True))
    assert refusal.ground is Ground.SAME_DATASET
    assert "backup1 is this very node, and tank/vm lies in the pool tank" in refusal.evidence
    assert "--endpoint" in refusal.remedy


def test_a_target_without_the_parent_dataset_is_refused_with_the_command_that_makes_it() -> None:
    refusal = refused(subject("a"), None, replace(SITE, parent_guid=None))
    assert refusal.ground is Ground.TARGET_PARENT_MISSING
    assert refusal.evidence == "backup1 has no dataset tank/vm"
    assert refusal.remedy.startswith("ssh backup1 zfs create -p -o canmount=off tank/vm")
    assert "--create-parent" in refusal.remedy


def foreign(history: str, vm_id: str | None) -> Dataset:
    return replace(replica(history), marks=Marks(vm_id, Role.REPLICA))


@pytest.mark.parametrize(
    ("vm_id", "whose"), [(None, "no hoster:id"), ("another", "the hoster:id another of another VM")]
)
def test_a_dataset_that_is_not_this_vms_is_refused_and_can_be_set_aside(
    vm_id: str | None, whose: str
) -> None:
    refusal = refused(subject("a b"), foreign("x", vm_id))
    assert refusal.ground is Ground.FOREIGN_DATASET
    assert refusal.evidence == f"tank/vm/web exists on backup1 and is not this VM's replica: it has {whose}"
    assert refusal.remedy.startswith("ssh backup1 zfs rename tank/vm/web tank/vm/web.set-aside")


def test_an_unmarked_dataset_that_shares_a_version_can_be_marked_as_the_replica() -> None:
    refusal = refused(subject("a b"), foreign("a", None))
    assert refusal.ground is Ground.FOREIGN_DATASET
    assert f"it shares a (guid {guid_of('a'):016x}) with this VM" in refusal.evidence
    assert refusal.remedy.startswith(
        f"ssh backup1 zfs set hoster:id={VM_ID} hoster:role=replica readonly=on tank/vm/web"
    )


@pytest.mark.parametrize(("ours", "theirs"), [(None, None), (None, VM_ID)])
def test_a_vm_that_has_no_identity_yet_does_not_own_what_is_there(
    ours: str | None, theirs: str | None
) -> None:
    here = Subject("web", dataset("tank/vm/web", "a"), Role.PRIMARY, "node1")
    refusal = refused(here, foreign("a", theirs))
    assert refusal.ground is Ground.FOREIGN_DATASET
    assert "set-aside" in refusal.remedy


@pytest.mark.parametrize(
    ("role", "epoch", "said"),
    [
        (Role.PRIMARY, Epoch(2, "node2"), "primary, epoch 2@node2"),
        (Role.SUPERSEDED, None, "superseded"),
        (Role.BRANCH, None, "branch"),
        (None, None, "no role"),
    ],
)
def test_a_copy_that_is_not_a_replica_is_never_received_into(
    role: Role | None, epoch: Epoch | None, said: str
) -> None:
    refusal = refused(subject("a b"), replace(replica("a"), marks=Marks(VM_ID, role, epoch)))
    assert refusal.ground is Ground.NOT_A_REPLICA
    assert refusal.evidence == f"tank/vm/web on backup1 is this VM, but not a replica: {said}"
    assert refusal.remedy.startswith("ssh backup1 zfs set hoster:role=replica tank/vm/web")


def test_partial_state_is_given_up_before_anything_else() -> None:
    refusal = refused(subject("a b"), replace(replica("a"), resume_token="1-abc"))
    assert refusal.ground is Ground.PARTIAL_RECEIVE
    assert refusal.evidence == "tank/vm/web on backup1 holds a partly received stream"
    assert refusal.remedy == "ssh backup1 zfs receive -A tank/vm/web"


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("", "it has no snapshot"),
        ("x", f"its newest is x (guid {guid_of('x'):016x})"),
        ("a'", f"its newest is a (guid {OTHER_A:016x})"),
    ],
)
def test_no_common_version_is_never_a_licence_to_start_afresh(there: str, said: str) -> None:
    refusal = refused(subject("a b"), replica(there))
    assert refusal.ground is Ground.NO_COMMON_VERSION
    assert refusal.evidence.endswith(said)
    assert refusal.remedy.startswith("ssh backup1 zfs rename tank/vm/web tank/vm/web.set-aside")


@pytest.mark.parametrize(
    ("there", "count", "newest"), [("a x+1", 1, "x"), ("a x+1 y+2", 2, "y"), ("a x+1 y", 1, "x")]
)
def test_data_of_the_replicas_own_after_the_base_is_a_refusal(there: str, count: int, newest: str) -> None:
    refusal = refused(subject("a b"), replica(there))
    assert refusal.ground is Ground.REPLICA_AHEAD
    assert f"holds {count} newer version(s) with data of their own" in refusal.evidence
    assert f"newest {newest} (guid {guid_of(newest):016x})" in refusal.evidence
    assert refusal.evidence.endswith("the last common one is a")
    assert "nothing is lost" in refusal.remedy


@pytest.mark.parametrize("there", ["b' a", "a b'", "x b' a y"])
def test_a_name_that_another_version_has_there_is_refused_with_the_rename(there: str) -> None:
    refusal = refused(subject("a b c"), replica(there))
    assert refusal.ground is Ground.NAME_TAKEN
    assert f"tank/vm/web@b on backup1 is another version (guid {OTHER_B:016x})" in refusal.evidence
    assert refusal.remedy.startswith(f"ssh backup1 zfs rename tank/vm/web@b tank/vm/web@b.{OTHER_B:016x}")


def test_a_name_that_is_not_to_be_sent_any_more_is_in_nobodys_way() -> None:
    assert cleared(subject("b a c"), replica("b' a!")).base is not None


def test_what_was_written_to_a_replica_is_shown_with_the_rollback_that_discards_it() -> None:
    refusal = refused(subject("a b"), replica("a ~512"))
    assert refusal.ground is Ground.REPLICA_MODIFIED
    assert refusal.evidence == "512 bytes were written to tank/vm/web on backup1 since a arrived there"
    assert refusal.remedy == "ssh backup1 zfs rollback tank/vm/web@a    (discards what was written there)"


REFUSALS: dict[Ground, Callable[[], Refusal]] = {
    Ground.IS_REPLICA: lambda: refused(subject("a", Role.REPLICA), None),
    Ground.UNSUPPORTED: lambda: refused(replace(subject("a"), descendants=("x",)), None),
    Ground.SAME_DATASET: lambda: refused(subject("a"), None, replace(SITE, same_pool=True)),
    Ground.TARGET_PARENT_MISSING: lambda: refused(subject("a"), None, replace(SITE, parent_guid=None)),
    Ground.FOREIGN_DATASET: lambda: refused(subject("a"), foreign("x", None)),
    Ground.NOT_A_REPLICA: lambda: refused(subject("a"), replace(replica("a"), marks=Marks(VM_ID))),
    Ground.PARTIAL_RECEIVE: lambda: refused(subject("a"), replace(replica("a"), resume_token="1-a")),
    Ground.NO_COMMON_VERSION: lambda: refused(subject("a"), replica("x")),
    Ground.NAME_TAKEN: lambda: refused(subject("a b"), replica("b' a")),
    Ground.REPLICA_AHEAD: lambda: refused(subject("a"), replica("a x+1")),
    Ground.REPLICA_MODIFIED: lambda: refused(subject("a"), replica("a ~1")),
}


@pytest.mark.parametrize("ground", Ground)
def test_every_ground_has_a_case_with_evidence_and_a_remedy(ground: Ground) -> None:
    refusal = REFUSALS[ground]()
    assert refusal.ground is ground
    assert refusal.evidence
    assert refusal.remedy


def test_an_earlier_ground_hides_later_ones() -> None:
    here = replace(subject("a", Role.REPLICA), descendants=("x",))
    assert refused(here, replica("x ~1"), replace(SITE, parent_guid=None)).ground is Ground.IS_REPLICA


def test_the_key_of_a_target_is_its_parents_guid_and_needs_one() -> None:
    assert SITE.key == TargetKey(target_key("1").guid)
    with pytest.raises(ValueError, match="tank/vm does not exist on backup1"):
        _ = replace(SITE, parent_guid=None).key


@pytest.mark.parametrize(
    ("history", "reason"),
    [("~8", "it has no snapshot yet"), ("manual ~8", "8 bytes were written since manual")],
)
def test_a_snapshot_says_why_it_is_taken(history: str, reason: str) -> None:
    assert why_taken(dataset("tank/vm/web", history)) == reason


def steps_of(plan: Plan) -> list[str]:
    return [
        f"{'-I' if s.intermediate else '-i'} {words([s.base]) if s.base else '-'} {s.through.name}"
        if isinstance(s, Send)
        else f"take {s.name}"
        for s in plan.steps
        if isinstance(s, Send | TakeSnapshot)
    ]


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
