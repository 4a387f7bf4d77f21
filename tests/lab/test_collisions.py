"""Commands that meet: what must not run together is refused with who is in the way, and nothing is lost."""

from __future__ import annotations

import pytest

from lab.lab import Lab
from lab.node import Completed, Node
from tests.lab.cutting import (
    HOSTER,
    RECEIVES,
    begin,
    begin_and_arrive,
    converged,
    exit_code,
    kill,
    leftovers,
    log,
    running,
    token,
    until,
)
from tests.lab.world import (
    DATASET,
    disk_hash,
    guids,
    hoster,
    hoster_json,
    make_vm,
    names,
    prepare,
    value,
    write,
)

pytestmark = pytest.mark.lab

WEB = f"{DATASET}/web"
TO_NODE2 = "vm replicate web --endpoint node2 --script-name far"
TO_USB = "vm replicate web --endpoint local --target-dataset usb/vm --script-name near"
SLOWLY = "--speed-limit 0.05"
"""So that all that is tried meanwhile is done long before; these runs are killed when it is."""


def busy(node: Node, words: str) -> str:
    """What a command says that has to wait."""
    return hoster(node, words, code=11).stderr


def begin_beside(node: Node, words: str, name: str) -> None:
    """Starts another run in the background: its output goes to NAME.log, its exit code to NAME.code."""
    node.run(
        f"rm -f /root/{name}.code; nohup sh -c 'hoster {words} >/root/{name}.log 2>&1 </dev/null;"
        f" echo $? >/root/{name}.new; mv /root/{name}.new /root/{name}.code' >/dev/null 2>&1 </dev/null &"
    )


def ended_beside(node: Node, name: str) -> Completed:
    """How it ended, waited for."""
    until(lambda: node.run(f"cat /root/{name}.code", check=False).stdout, within_s=180, what=name)
    said = node.run(f"cat /root/{name}.log").stdout
    return Completed(said, "", int(node.run(f"cat /root/{name}.code").stdout))


def every_version(node: Node) -> set[str]:
    """The GUIDs of all snapshots below the dataset of VMs, branches included."""
    return set(node.run(f"zfs list -H -r -t snapshot -o guid {DATASET}").stdout.split())


def test_two_jobs_and_a_rollback_in_every_order(fresh_lab: Lab) -> None:
    one, two = fresh_lab.node1, fresh_lab.node2
    one.reset_pools(tank=1, usb=1)
    prepare(fresh_lab)
    one.run("zfs create usb/vm")
    make_vm(one, "web", kib=64)
    hoster(one, TO_NODE2)
    hoster(one, TO_USB)
    first = names(one, WEB)[0]
    write(one, "web", kib=12 * 1024)
    jobs_before_the_rollback(one, two, first)
    write(one, "web")
    newest = every_version(one)
    rollback_before_the_jobs(one, first)
    assert newest <= every_version(one), "what is newer became a branch"
    both_jobs_at_once_afterwards(one, two)


def jobs_before_the_rollback(one: Node, two: Node, first: str) -> None:
    # A job is sending: a second one to another place goes on beside it, and the rollback names both.
    begin_and_arrive(one, two, f"{TO_NODE2} {SLOWLY}", "web")
    begin_beside(one, f"{TO_USB} {SLOWLY}", "near")
    until(lambda: sum(bool(job["vms"]) for job in hoster_json(one, "jobs")) == 2, what="the second job")
    both = busy(one, f"snapshot rollback web {first}")
    for job, command in (("far", TO_NODE2), ("near", TO_USB)):
        assert f"job {job} (hoster {command} {SLOWLY}); " in both
    assert both.count(" MiB are sent") == 2
    assert both.count("process ") == 2
    assert both.count(" since 20") == 2

    # Snapshots go on as well; what needs the VM alone has to wait, and so has a second run of the same job.
    begin_beside(one, f"{TO_NODE2} --wait 300", "again")
    hoster(one, "snapshot new web")
    sent = names(one, WEB)[-2]
    assert f"{sent} is needed by a target, and web is being sent by process" in busy(
        one, f"snapshot destroy web {sent}"
    )
    assert "the replication job far is in use by process" in busy(one, TO_NODE2)
    for words in ("change parent --vm web", "vm demote web", "vm cireset web", "vm restore web --from node2"):
        assert f"(hoster {TO_NODE2} {SLOWLY}); " in busy(one, words), words
    assert kill(one, SLOWLY) >= 2
    waited = ended_beside(one, "again")
    assert waited.returncode == 0, waited.stdout
    hoster(one, TO_USB)
    converged(one, two, "web")
    assert leftovers(one) == leftovers(two) == []


def rollback_before_the_jobs(one: Node, first: str) -> None:
    """Both jobs say so while the VM is going back, and so does another rollback."""
    begin(one, f"snapshot rollback web {first}")
    one.run(
        "while ! grep -qs 'web is going back' /run/hoster/locks/*; do sleep 0.01; done;"
        f" kill -STOP $(pgrep -f '[{HOSTER[0]}]{HOSTER[1:]}')"
    )
    for words in (TO_NODE2, TO_USB, f"snapshot rollback web {first}", f"snapshot destroy web {first}"):
        done = hoster(one, words, code=11)
        assert f"web is going back (hoster snapshot rollback web {first})" in f"{done.stdout}{done.stderr}"
    one.run(f"kill -CONT $(pgrep -f '[{HOSTER[0]}]{HOSTER[1:]}')")
    assert exit_code(one) == 0, log(one)


def both_jobs_at_once_afterwards(one: Node, two: Node) -> None:
    """They bring it to either end, and what was newer there is kept as well."""
    there = every_version(two)
    write(one, "web")
    begin(one, TO_NODE2)
    begin_beside(one, TO_USB, "near")
    assert exit_code(one) == 0, log(one)
    assert ended_beside(one, "near").returncode == 0
    converged(one, two, "web")
    assert there <= every_version(two)
    near = one.run("zfs list -H -t snapshot -o guid -s createtxg usb/vm/web").stdout.split()
    assert near[-1] in guids(one, WEB)[-2:]


def test_a_takeover_waits_for_a_source_that_sends_and_not_for_one_that_is_dead(fresh_lab: Lab) -> None:
    one, two = fresh_lab.node1, fresh_lab.node2
    prepare(fresh_lab)
    make_vm(one, "web", kib=64)
    hoster(one, TO_NODE2)
    whole = disk_hash(one, "web")
    write(one, "web", kib=12 * 1024)
    begin_and_arrive(one, two, f"{TO_NODE2} {SLOWLY}", "web")
    alive = busy(two, "change parent --vm web --accept-loss")
    assert f"{WEB} is being received by process" in alive
    one.power_cut()
    ended = hoster(two, "change parent --vm web --accept-loss")
    assert f"the receiving of {WEB} (process " in f"{ended.stdout}{ended.stderr}"
    assert value(two, WEB, "hoster:role") == "primary"
    assert disk_hash(two, "web") == whole
    assert running(two, RECEIVES) == []
    assert token(two, WEB) == ""
    one.start()
