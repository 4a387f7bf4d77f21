"""Why a VM is not replicated: every ground for a refusal, with its evidence and its remedy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from hoster.model.anchors import TargetKey
from hoster.model.plan import Ground, Refusal
from hoster.model.storage import Dataset, Epoch, Marks, Mode, Role
from hoster.planning.refusals import Subject, TargetSite, Terms
from hoster.testing import VM_ID, dataset, guid_of, target_key
from tests.unit.planning.judging import (
    ENCRYPTS,
    HERE,
    SITE,
    TARGET,
    cleared,
    encrypted,
    foreign,
    partly,
    refused,
    replica,
    subject,
)

OTHER_A, OTHER_B = guid_of("a'"), guid_of("b'")
NO_RAW = Terms(no_raw=True)
FORWARD = Terms(forward=True)


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


def test_the_pool_that_the_vm_lies_in_is_no_target() -> None:
    refusal = refused(subject("a"), None, site=replace(SITE, same_pool=True))
    assert refusal.ground is Ground.SAME_DATASET
    assert "backup1 is this very node, and tank/vm lies in the pool tank" in refusal.evidence
    assert "--endpoint" in refusal.remedy


def test_a_target_without_the_parent_dataset_is_refused_with_the_command_that_makes_it() -> None:
    refusal = refused(subject("a"), None, site=replace(SITE, parent_guid=None))
    assert refusal.ground is Ground.TARGET_PARENT_MISSING
    assert refusal.evidence == "backup1 has no dataset tank/vm"
    assert refusal.remedy.startswith("ssh backup1 zfs create -p -o canmount=off tank/vm")
    assert "--create-parent" in refusal.remedy


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
        (Role.PRIMARY, Epoch(1, "node1"), "primary, epoch 1@node1"),
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


def promoted(history: str, epoch: Epoch, role: Role = Role.PRIMARY) -> Dataset:
    """The copy on the target after somebody promoted it there, or told it of a promotion."""
    return replace(replica(history), marks=Marks(VM_ID, role, epoch, epoch.node))


@pytest.mark.parametrize("role", [Role.PRIMARY, Role.REPLICA])
def test_what_was_taken_over_is_not_overwritten_by_the_old_host(role: Role) -> None:
    refusal = refused(subject("a b"), promoted("a", Epoch(2, "node2"), role))
    assert refusal.ground is Ground.SUPERSEDED
    assert refusal.evidence == (
        "node2 has taken this VM over: tank/vm/web on backup1 is of epoch 2@node2, this copy of 1@node1"
    )
    assert refusal.remedy.startswith("hoster vm demote web")


def test_two_promotions_that_knew_nothing_of_each_other_are_a_split() -> None:
    refusal = refused(subject("a b"), promoted("a", Epoch(1, "node2")))
    assert refusal.ground is Ground.SPLIT
    assert "epoch 1@node1" in refusal.evidence
    assert "epoch 1@node2" in refusal.evidence
    assert refusal.remedy.startswith("hoster change parent --vm web")


def test_a_copy_that_was_demoted_gives_way_with_all_that_it_wrote_alone() -> None:
    there = replica("a x y+5 ~7")
    demoted = replace(there, marks=replace(there.marks, demoted=True, epoch=Epoch(9, "node9")))
    assert refused(subject("a b"), there).ground is Ground.REPLICA_AHEAD
    assert cleared(subject("a b"), demoted).parting
    unchanged = replace(replica("a"), marks=demoted.marks)
    assert not cleared(subject("a b"), unchanged).parting


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
    assert f"holds {count} newer version(s)" in refusal.evidence
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
    assert cleared(subject("b a c"), replica("b' a!")).parts[0].base is not None


def test_what_was_written_to_a_replica_is_shown_with_the_rollback_that_discards_it() -> None:
    refusal = refused(subject("a b"), replica("a ~512"))
    assert refusal.ground is Ground.REPLICA_MODIFIED
    assert refusal.evidence == "512 bytes were written to tank/vm/web on backup1 since a arrived there"
    assert refusal.remedy == "ssh backup1 zfs rollback tank/vm/web@a    (discards what was written there)"


@pytest.mark.parametrize("role", [Role.SUPERSEDED, Role.BRANCH])
def test_only_replicas_are_passed_on(role: Role) -> None:
    assert refused(subject("a", role), terms=FORWARD).ground is Ground.IS_REPLICA


@pytest.mark.parametrize(
    ("own", "below", "ground"),
    [
        ("a!", "x", Ground.NO_COMMON_VERSION),
        ("a!", "a x+1", Ground.REPLICA_AHEAD),
        ("a!", "a ~1", Ground.REPLICA_MODIFIED),
        ("a!", "b' a", Ground.NAME_TAKEN),
        ("x", "a!", Ground.NO_COMMON_VERSION),
    ],
)
def test_one_dataset_that_must_not_go_on_stops_the_whole_vm(own: str, below: str, ground: Ground) -> None:
    refusal = refused(subject("a b", d0="a b", d1="a b"), replica(own), replica(below, "d0"))
    assert refusal.ground is ground
    assert (f"{TARGET}/d0" in refusal.evidence) is (own == "a!")


def test_a_descendant_without_marks_is_not_this_vms() -> None:
    theirs = replace(replica("a", "d0"), marks=Marks())
    refusal = refused(subject("a", d0="a"), replica("a!"), theirs)
    assert refusal.ground is Ground.FOREIGN_DATASET
    assert refusal.remedy.startswith(f"ssh backup1 zfs set hoster:id={VM_ID}")


@pytest.mark.parametrize("keys", [True, False])
def test_to_send_decrypted_the_key_must_be_loaded(keys: bool) -> None:
    here = encrypted(subject("a", d0="a"), "d0", keys=keys)
    if keys:
        assert cleared(here, site=ENCRYPTS, terms=NO_RAW).parts
        return
    refusal = refused(here, site=ENCRYPTS, terms=NO_RAW)
    assert refusal.ground is Ground.KEY_NOT_LOADED
    assert refusal.evidence == "--no-raw sends tank/vm/web decrypted, and its key is not loaded"
    assert refusal.remedy == "zfs load-key tank/vm/web"


def test_nothing_encrypted_is_sent_decrypted_to_a_target_that_does_not_encrypt() -> None:
    refusal = refused(encrypted(subject("a")), terms=NO_RAW)
    assert refusal.ground is Ground.WOULD_LIE_READABLE
    assert refusal.evidence == "--no-raw sends tank/vm/web decrypted, and tank/vm on backup1 is not encrypted"
    assert refusal.remedy.startswith("leave out --no-raw")


def test_a_plain_child_of_an_encrypted_vm_would_lie_readable() -> None:
    refusal = refused(encrypted(subject("a", d0="a")))
    assert refusal.ground is Ground.WOULD_LIE_READABLE
    assert refusal.evidence == (
        "tank/vm/web/d0 is not encrypted though tank/vm/web is: it would lie readable on backup1"
    )
    assert refusal.remedy.startswith("add --allow-plain-child")
    assert refused(encrypted(subject("a", d0="a")), site=ENCRYPTS) == refusal, "its replica is a raw one"
    allowed = Terms(allow_plain_child=True)
    assert cleared(encrypted(subject("a", d0="a")), terms=allowed).parts
    assert cleared(encrypted(subject("a", d0="a")), site=ENCRYPTS, terms=NO_RAW).parts


@pytest.mark.parametrize("began", [Mode.PLAIN, None])
def test_a_replica_that_was_begun_plain_does_not_go_on_raw(began: Mode | None) -> None:
    refusal = refused(encrypted(subject("a b")), replica("a!", mode=began), site=ENCRYPTS)
    assert refusal.ground is Ground.MODE_MISMATCH
    assert "was begun with plain streams, and these would be raw ones" in refusal.evidence
    assert refusal.remedy.startswith(f"ssh backup1 zfs rename {TARGET} {TARGET}.set-aside")
    assert "or add --no-raw" in refusal.remedy


def test_a_replica_that_was_begun_raw_does_not_go_on_plain() -> None:
    refusal = refused(encrypted(subject("a b")), replica("a!", mode=Mode.RAW), site=ENCRYPTS, terms=NO_RAW)
    assert refusal.ground is Ground.MODE_MISMATCH
    assert "was begun with raw streams, and these would be plain ones" in refusal.evidence
    assert refusal.remedy == "leave out --no-raw"


def test_the_raw_replica_of_a_vm_that_is_not_encrypted_is_set_aside() -> None:
    refusal = refused(subject("a b"), replica("a!", mode=Mode.RAW))
    assert refusal.ground is Ground.MODE_MISMATCH
    assert refusal.remedy.startswith(f"ssh backup1 zfs rename {TARGET} {TARGET}.set-aside")


def test_the_remedy_for_a_mode_looks_at_the_dataset_that_it_is_about() -> None:
    here = subject("a", d0="a b")
    sealed = replace(here, descendants=tuple(replace(d, encrypted=True) for d in here.descendants))
    theirs = replica("a!", "d0", mode=Mode.RAW)
    refusal = refused(sealed, replica("a!"), theirs, site=ENCRYPTS, terms=NO_RAW)
    assert refusal.ground is Ground.MODE_MISMATCH
    assert refusal.remedy == "leave out --no-raw"


@pytest.mark.parametrize("there", ["a x", "a b'"])
def test_a_raw_stream_goes_on_only_from_the_newest_version_there_is(there: str) -> None:
    refusal = refused(encrypted(subject("a c")), replica(there, mode=Mode.RAW))
    assert refusal.ground is Ground.REPLICA_AHEAD
    assert "with data of their own" not in refusal.evidence


@pytest.mark.parametrize("below", ["a x+1", "a b'+1"])
def test_a_descendant_that_was_set_aside_as_typed_is_sent_afresh_by_the_next_run(below: str) -> None:
    here = subject("a b", d0="a b")
    refusal = refused(here, replica("a!"), replica(below, "d0"))
    assert refusal.ground is Ground.REPLICA_AHEAD
    _, _, _, _, old, new, *_ = refusal.remedy.split()
    theirs = [replica("a!"), replica(below, "d0")]
    cleared(here, *(replace(d, name=d.name.replace(old, new, 1)) for d in theirs))


REFUSALS: dict[Ground, Callable[[TargetSite], Refusal]] = {
    Ground.IS_REPLICA: lambda site: refused(subject("a", Role.REPLICA), site=site),
    Ground.NAME_TOO_LONG: lambda site: refused(
        Subject("web", dataset("tank/" + "n" * 210, "a", Role.PRIMARY), Role.PRIMARY, "node1"), site=site
    ),
    Ground.SAME_DATASET: lambda site: refused(subject("a"), site=replace(site, same_pool=True)),
    Ground.TARGET_PARENT_MISSING: lambda site: refused(subject("a"), site=replace(site, parent_guid=None)),
    Ground.FOREIGN_DATASET: lambda site: refused(subject("a"), foreign("x", None), site=site),
    Ground.NOT_A_REPLICA: lambda site: refused(
        subject("a"), replace(replica("a"), marks=Marks(VM_ID)), site=site
    ),
    Ground.SUPERSEDED: lambda site: refused(subject("a"), promoted("a", Epoch(2, "node2")), site=site),
    Ground.SPLIT: lambda site: refused(subject("a"), promoted("a", Epoch(1, "node2")), site=site),
    Ground.NO_COMMON_VERSION: lambda site: refused(subject("a"), replica("x"), site=site),
    Ground.NAME_TAKEN: lambda site: refused(subject("a b"), replica("b' a"), site=site),
    Ground.REPLICA_AHEAD: lambda site: refused(subject("a"), replica("a x+1"), site=site),
    Ground.REPLICA_MODIFIED: lambda site: refused(subject("a"), replica("a ~1"), site=site),
    Ground.REPLICA_MOUNTED: lambda site: refused(
        subject("a"), replace(replica("a! b!+1"), mounted=True), site=site
    ),
    Ground.MODE_MISMATCH: lambda site: refused(subject("a"), replica("a!", mode=Mode.RAW), site=site),
    Ground.KEY_NOT_LOADED: lambda site: refused(encrypted(subject("a"), keys=False), site=site, terms=NO_RAW),
    Ground.WOULD_LIE_READABLE: lambda site: refused(encrypted(subject("a")), site=site, terms=NO_RAW),
    Ground.DESCENDANT_RENAMED: lambda site: refused(
        subject("a", d1="x"), replica("a!"), replica("x!", "d0"), site=site
    ),
}

IN_A_STREAM = {Ground.KEY_CHANGED}
"""What shows only when a stream is about to be sent: see the tests of the operations (keys)."""

OF_GOING_BACK = {
    *(Ground.OF_ANOTHER_VM, Ground.VERSION_MISSING, Ground.PARTLY_RECEIVED, Ground.RUNNING),
    *(Ground.IN_USE, Ground.HELD, Ground.CLONED, Ground.NEEDED_BY_TARGET),
}
"""What keeps a VM from going back, not from being replicated: see the tests of rollbacks."""


OF_TAKING_OVER = {Ground.NOTHING_WHOLE, Ground.MAY_LOSE_DATA}
"""What keeps a replica from taking over: see the tests of successions."""


@pytest.mark.parametrize(
    "ground", [g for g in Ground if g not in IN_A_STREAM | OF_GOING_BACK | OF_TAKING_OVER]
)
def test_every_ground_has_a_case_with_evidence_and_a_remedy(ground: Ground) -> None:
    refusal = REFUSALS[ground](SITE)
    assert refusal.ground is ground
    assert refusal.evidence
    assert refusal.remedy


@pytest.mark.parametrize("ground", REFUSALS)
def test_where_this_node_is_the_target_no_remedy_goes_through_ssh(ground: Ground) -> None:
    there, here = REFUSALS[ground](SITE), REFUSALS[ground](HERE)
    assert "ssh " not in here.remedy
    assert there.remedy.removeprefix("ssh backup1 ") == here.remedy


def test_an_earlier_ground_hides_later_ones() -> None:
    here = subject("a", Role.REPLICA)
    assert refused(here, replica("x ~1"), site=replace(SITE, parent_guid=None)).ground is Ground.IS_REPLICA


def test_the_key_of_a_target_is_its_parents_guid_and_needs_one() -> None:
    assert SITE.key == TargetKey(target_key("1").guid)
    with pytest.raises(ValueError, match="tank/vm does not exist on backup1"):
        _ = replace(SITE, parent_guid=None).key


def test_what_arrived_of_a_first_stream_does_not_hide_versions_that_nobody_here_has() -> None:
    refusal = refused(subject("a b"), partly(replica("x"), "-", "a"))
    assert refusal.ground is Ground.NO_COMMON_VERSION
