"""A target that is gone for good is forgotten: what was kept for it goes, and nothing else does."""

from __future__ import annotations

import pytest

from lab.lab import Lab
from tests.lab.test_targets import anchored, target_key
from tests.lab.world import (
    DATASET,
    everything,
    guids,
    hoster,
    hoster_json,
    make_vm,
    names,
    prepare,
    value,
    vm_report,
    write,
)

pytestmark = pytest.mark.lab

WEB = f"{DATASET}/web"


def test_a_pool_that_is_gone_is_forgotten_and_another_target_starts_where_both_still_agree(lab: Lab) -> None:
    lab.reset(tank=1, usb=1)
    prepare(lab)
    source, target = lab.node1, lab.node2
    make_vm(source, "web")
    source.run("zfs create usb/backup")
    near = "vm replicate web -e local --target-dataset usb/backup"
    far = f"vm replicate web -e {target.address}"
    forget_near = "vm forget-target web -e local"
    hoster(source, near)
    kept = guids(source, WEB)[0]
    for _ in range(3):  # more than replication.keep
        write(source, "web")
        hoster(source, far)
    assert kept in guids(source, WEB)
    gone_key, far_key = target_key(source, "usb/backup"), target_key(target, DATASET)
    source.run("zpool export usb")

    before = everything(source), everything(target)
    planned = vm_report(hoster_json(source, f"{forget_near} --dry-run"), "web")
    assert [one["snapshot"] for one in planned["destroyed"]] == [f"{WEB}#hoster-{gone_key}-{int(kept):016x}"]
    assert any(names(source, WEB)[0] in note for note in planned["notes"]), planned
    unanswered = hoster(source, f"{forget_near} </dev/null", code=130)
    assert "Give up these 1 anchors" in unanswered.stderr
    assert (everything(source), everything(target)) == before

    versions = guids(source, WEB)
    done = vm_report(hoster_json(source, f"{forget_near} --yes"), "web")
    assert done["destroyed"] == planned["destroyed"]
    assert list(anchored(source, WEB)) == [far_key]
    assert guids(source, WEB) == versions
    (web,) = hoster_json(source, "status")["vms"]
    assert [one["node"] for one in web["targets"]] == [target.address]
    glance = hoster_json(source, "host")
    assert [one["node"] for one in glance["replication"]] == [target.address]
    assert hoster_json(source, "history web")[0]["kind"] == "forgetting"
    hoster(source, f"{forget_near} --yes", code=3)

    write(source, "web")
    hoster(source, far)
    assert kept not in guids(source, WEB), "nothing keeps it any more"
    source.run("zpool import usb")
    again = vm_report(hoster_json(source, near, code=10), "web")
    assert again["ground"] == "no-common-version"

    # The other one answers, and what both have is left: it goes on from there.
    before_far = everything(target)
    hoster(source, f"vm forget-target web -e {target.address} --yes")
    assert anchored(source, WEB) == {}
    assert value(source, WEB, "hoster:sites") == "-"
    assert everything(target) == before_far
    write(source, "web", kib=4)
    went_on = vm_report(hoster_json(source, far), "web")
    assert 0 < went_on["sent_bytes"] < 300_000, "an increment"
    assert list(anchored(source, WEB)) == [far_key]
    assert guids(target, WEB)[-1] == guids(source, WEB)[-1]
