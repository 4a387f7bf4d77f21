"""Names that are legal and awkward, a great many versions, and names that must not get through."""

from __future__ import annotations

import pytest

from hoster.model.plan import Ground
from lab.lab import Lab
from tests.lab.world import guids, hoster, hoster_json, make_vm, prepare, vm_report, write

pytestmark = pytest.mark.lab

WEB = "tank/vm/web"
MANY = 2_000

# Two snapshots of one dataset at one moment are refused, so a channel program takes one at a time.
TAKE_MANY = """
args = ...
argv = args["argv"]
for i = tonumber(argv[2]), tonumber(argv[3]) do
  zfs.sync.snapshot(string.format("%s@s%05d", argv[1], i))
end
"""


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


def test_two_thousand_snapshots_of_one_vm_are_replicated_and_then_cost_one_look(fresh_lab: Lab) -> None:
    prepare(fresh_lab)
    source, target = fresh_lab.node1, fresh_lab.node2
    make_vm(source, "web", kib=64)
    for first in range(1, MANY, 100):
        words = f"zfs program tank - {WEB} {first} {first + 99}"
        source.run(words, input=TAKE_MANY, timeout_s=120)
    hoster(source, f"vm replicate web -e {target.address}", timeout_s=3000)
    assert len(guids(target, WEB)) == len(guids(source, WEB)) == MANY
    with source.audit() as seen:
        idle = vm_report(hoster_json(source, f"vm replicate web -e {target.address}", timeout_s=600), "web")
    assert idle["outcome"] == "unchanged"
    assert seen.count("zfs", "get") == 1
