"""Names that are legal and awkward, a great many versions, and names that must not get through."""

from __future__ import annotations

import pytest

from hoster.model.plan import Ground
from lab.lab import Lab
from tests.lab.world import guids, hoster, hoster_json, make_vm, prepare, vm_report, write

pytestmark = pytest.mark.lab

WEB = "tank/vm/web"
PARTS, EACH = 5, 60


def test_awkward_names_travel_and_those_that_leave_no_room_are_refused(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    source, target = fresh_lab.node1, fresh_lab.node2
    make_vm(source, "web")
    below = [f"{WEB}/{name}" for name in ("my disk", "-x", "a..b", "c:d", "n" * (214 - len(WEB) - 1))]
    for dataset in below:
        source.run(["zfs", "create", dataset])
    source.run(["zfs", "snapshot", f"{below[0]}@by hand - 1"])
    hoster(source, f"vm replicate web -e {target.address}")
    write(source, "web")
    hoster(source, f"vm replicate web -e {target.address}")
    for dataset in below:
        quoted = f"'{dataset}'"
        assert guids(target, quoted) == guids(source, quoted) != []
    source.run(["zfs", "rename", below[0], f"{WEB}/its disk"])
    renamed = vm_report(hoster_json(source, f"vm replicate web -e {target.address}", code=10), "web")
    assert renamed["ground"] == Ground.DESCENDANT_RENAMED
    source.run(renamed["remedy"])
    assert (
        vm_report(hoster_json(source, f"vm replicate web -e {target.address}"), "web")["outcome"] != "refused"
    )
    source.run(["zfs", "rename", below[-1], f"{below[-1]}x"])
    long = vm_report(hoster_json(source, f"vm replicate web -e {target.address}", code=10), "web")
    assert long["ground"] == Ground.NAME_TOO_LONG
    source.run(long["remedy"])


@pytest.mark.parametrize(
    "words",
    [
        "vm replicate web -e '-oProxyCommand=touch /tmp/hostile'",
        "vm replicate web -e 'node2;touch /tmp/hostile'",
        "vm replicate web -e '$(touch /tmp/hostile)'",
        "vm replicate web -e node2 --key '/tmp/x -oProxyCommand=touch /tmp/hostile'",
        "vm replicate web -e node2 --target-dataset 'tank/vm;touch /tmp/hostile'",
        "vm replicate web -e node2 --target-dataset '-F'",
        "vm replicate web -e node2 --script-name '../../tmp/hostile'",
        "vm replicate '-F' -e node2",
        "vm branches destroy -y '../web'",
    ],
)
def test_hostile_words_are_refused_and_nothing_is_run(lab: Lab, words: str) -> None:
    done = hoster(lab.node1, words, code=None)
    assert done.returncode in {2, 3}
    assert "Traceback" not in done.stderr
    for node in lab.nodes:
        assert node.run("ls -d /tmp/hostile /tmp/hostile.log", check=False).stdout == ""


def test_hundreds_of_snapshots_of_one_vm_are_replicated_and_then_cost_one_look(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    source, target = fresh_lab.node1, fresh_lab.node2
    make_vm(source, "web", kib=64)
    source.run(
        f"for i in $(seq {PARTS - 1}); do zfs create {WEB}/d$i; done;"
        f" for i in $(seq {EACH}); do zfs snapshot -r {WEB}@s$i; done",
        timeout_s=300,
    )
    hoster(source, f"vm replicate web -e {target.address}", timeout_s=900)
    for part in (WEB, f"{WEB}/d1", f"{WEB}/d{PARTS - 1}"):
        assert guids(target, part) == guids(source, part)
        assert len(guids(source, part)) == EACH
    with source.audit() as seen:
        idle = vm_report(hoster_json(source, f"vm replicate web -e {target.address}", timeout_s=600), "web")
    assert idle["outcome"] == "unchanged"
    assert seen.count("zfs", "get") == 1
