"""The command lines, word for word."""

from __future__ import annotations

import shlex

import pytest

from hoster.model.plan import Send
from hoster.testing import dataset
from hoster.zfs import argv

WEB = dataset("tank/vm/web", "a b #c d")
A, B, D = WEB.snapshots
C = WEB.bookmarks[0]
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
        (
            argv.receive("backup/web", {"canmount": "noauto", "hoster:id": "5b"}),
            "zfs receive -u -o canmount=noauto -o hoster:id=5b -x mountpoint backup/web",
        ),
        (
            argv.set_properties({"hoster:role": "replica", "readonly": "on"}, ["a/b", "a/c"]),
            "zfs set hoster:role=replica readonly=on a/b a/c",
        ),
        (argv.create_unmounted("backup/vm"), "zfs create -p -o canmount=off backup/vm"),
        (argv.program("tank", ["a", "b"]), "zfs program -j tank - a b"),
        (argv.destroy_bookmark("tank/vm/web#c"), "zfs destroy 'tank/vm/web#c'"),
        (argv.version(), "zfs version"),
    ],
)
def test_every_verb_has_its_command_line(words: tuple[str, ...], line: str) -> None:
    assert words == tuple(shlex.split(line))


@pytest.mark.parametrize(
    "words", [argv.send(Send(A, D, True, "t", "")), argv.receive("backup/web", {"readonly": "on"})]
)
def test_nothing_is_forced_recursive_or_sent_with_its_properties(words: tuple[str, ...]) -> None:
    assert not {"-F", "-R", "-p", "-h", "-b", "-w", "-e", "-d", "-r"} & set(words)


def test_user_properties_are_asked_for_last() -> None:
    user = [":" in name for name in argv.LISTED_PROPERTIES]
    assert user == sorted(user)
