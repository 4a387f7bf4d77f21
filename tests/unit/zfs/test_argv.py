"""The command lines, word for word."""

from __future__ import annotations

import shlex

import pytest
from msgspec.structs import replace

from hoster.model.plan import Send
from hoster.model.storage import DatasetKind, Mode, ResumeToken
from hoster.testing import dataset
from hoster.zfs import argv

WEB = dataset("tank/vm/web", "a b #c d")
A, B, D = WEB.snapshots
C = WEB.bookmarks[0]
FULL = Send(None, A, False, "backup/web", "")
PROPERTIES = ",".join(argv.LISTED_PROPERTIES)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            argv.look(["tank/vm", "ssd/vm"]),
            (
                "zfs get -Hp -r -t filesystem,volume,snapshot,bookmark -o name,property,value,source"
                f" {PROPERTIES} tank/vm ssd/vm"
            ),
        ),
        (
            argv.look_at(["tank/vm"]),
            f"zfs get -Hp -t filesystem,volume -o name,property,value,source {PROPERTIES} tank/vm",
        ),
        (
            argv.look_beside(["tank/vm", "ssd/vm"]),
            (
                "zfs get -Hp -d 1 -t filesystem,volume -o name,property,value,source"
                f" {PROPERTIES} tank/vm ssd/vm"
            ),
        ),
        (
            argv.local_properties(["a/b", "a/c"]),
            "zfs get -Hp -s local -o name,property,value all a/b a/c",
        ),
        (argv.sync(["tank", "ssd"]), "zpool sync tank ssd"),
        (argv.snapshot(["tank/vm/web@x", "tank/vm/db@x"], {}), "zfs snapshot tank/vm/web@x tank/vm/db@x"),
        (
            argv.snapshot(["tank/vm/web@x"], {"hoster:sdescription": "before it"}),
            "zfs snapshot -o 'hoster:sdescription=before it' tank/vm/web@x",
        ),
        (argv.send(Send(None, A, False, "t", "")), "zfs send -L -c tank/vm/web@a"),
        (argv.send(Send(A, B, False, "t", "")), "zfs send -L -c -i tank/vm/web@a tank/vm/web@b"),
        (argv.send(Send(A, D, True, "t", "")), "zfs send -L -c -I tank/vm/web@a tank/vm/web@d"),
        (argv.send(Send(C, D, False, "t", "")), "zfs send -L -c -i 'tank/vm/web#c' tank/vm/web@d"),
        (argv.send(Send(C, D, True, "t", "")), "zfs send -L -c -i 'tank/vm/web#c' tank/vm/web@d"),
        (argv.send(replace(FULL, mode=Mode.RAW)), "zfs send -w tank/vm/web@a"),
        (argv.send(replace(FULL, resume=ResumeToken("1-a-b-c"))), "zfs send -t 1-a-b-c"),
        (
            argv.receive(FULL, {"hoster:id": "5b"}),
            "zfs receive -s -u -o readonly=on -o canmount=noauto -o hoster:id=5b -x mountpoint backup/web",
        ),
        (
            argv.receive(Send(A, B, False, "backup/web", ""), {"hoster:id": "5b"}),
            "zfs receive -s -u -o readonly=on -o canmount=noauto -x mountpoint backup/web",
        ),
        (
            argv.receive(replace(FULL, kind=DatasetKind.VOLUME), {"hoster:id": "5b"}),
            "zfs receive -s -u -o readonly=on -o volmode=none -o hoster:id=5b backup/web",
        ),
        (
            argv.receive(replace(FULL, resume=ResumeToken("1-a-b-c")), {"hoster:id": "5b"}),
            "zfs receive -s -u backup/web",
        ),
        (argv.give_up_partial("backup/web"), "zfs receive -A backup/web"),
        (argv.hold("hoster-1", ["a/b@c", "a/d@c"]), "zfs hold hoster-1 a/b@c a/d@c"),
        (argv.release("hoster-1", ["a/b@c", "a/d@c"]), "zfs release hoster-1 a/b@c a/d@c"),
        (argv.holds(["a/b@c", "a/d@c"]), "zfs holds -H a/b@c a/d@c"),
        (
            argv.set_properties({"hoster:role": "replica", "readonly": "on"}, ["a/b", "a/c"]),
            "zfs set hoster:role=replica readonly=on a/b a/c",
        ),
        (argv.inherit("hoster:swap", ["a/b", "a/c"]), "zfs inherit hoster:swap a/b a/c"),
        (argv.set_default("canmount", "a/b"), "zfs inherit -S canmount a/b"),
        (argv.clone("a/b@c", "a/d", {}), "zfs clone a/b@c a/d"),
        (
            argv.clone("a/b@c", "a/d", {"canmount": "noauto", "x:y": "1 2"}),
            "zfs clone -o canmount=noauto -o 'x:y=1 2' a/b@c a/d",
        ),
        (argv.promote("a/d"), "zfs promote a/d"),
        (argv.rename("a/b", "a/c"), "zfs rename a/b a/c"),
        (argv.destroy_dataset("a/b"), "zfs destroy a/b"),
        (argv.mount("a/b"), "zfs mount a/b"),
        (argv.unmount("a/b"), "zfs unmount a/b"),
        (argv.rollback("a/b@c"), "zfs rollback a/b@c"),
        (argv.bookmark("a/b@c", "a/b#d"), "zfs bookmark a/b@c 'a/b#d'"),
        (argv.delegations("a/b"), "zfs allow a/b"),
        (argv.allow(("-l", "-u", "anna", "mount,send"), "a/b"), "zfs allow -l -u anna mount,send a/b"),
        (argv.create_unmounted("backup/vm"), "zfs create -p -o canmount=off backup/vm"),
        (argv.program("tank", ["a", "b"]), "zfs program -j tank - a b"),
        (argv.destroy_bookmark("tank/vm/web#c"), "zfs destroy 'tank/vm/web#c'"),
        (argv.version(), "zfs version"),
    ],
)
def test_every_verb_has_its_command_line(words: tuple[str, ...], line: str) -> None:
    assert words == tuple(shlex.split(line))


@pytest.mark.parametrize(
    "words", [argv.send(Send(A, D, True, "t", "")), argv.receive(FULL, {"hoster:id": "5b"})]
)
def test_nothing_is_forced_recursive_or_sent_with_its_properties(words: tuple[str, ...]) -> None:
    assert not {"-F", "-R", "-p", "-h", "-b", "-w", "-e", "-d", "-r"} & set(words)


def test_user_properties_are_asked_for_last() -> None:
    user = [":" in name for name in argv.LISTED_PROPERTIES]
    assert user == sorted(user)
