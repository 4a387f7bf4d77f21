"""[schedules] of hoster.toml: what is read, and that everything wrong is named with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoster.config.settings import read_settings
from hoster.errors import ConfigurationError
from hoster.model.names import Endpoint, SnapshotType
from hoster.model.schedules import Schedule, Selection, Target, Window

TAKES = "[schedules.a]\nproduction = true\n"
DOES = "[schedules.a.snapshots]\ndaily = 2\n"
SENDS = '[schedules.a.targets.t]\nendpoint = "b"\n'


def schedules_from(folder: Path, text: str) -> tuple[Schedule, ...]:
    path = folder / "hoster.toml"
    path.write_text(f'datasets = ["tank/vm"]\n{text}')
    return read_settings(path).schedules


def test_a_schedule_is_read_with_all_of_its_keys(tmp_path: Path) -> None:
    text = """
    [schedules.z]
    vms = ["web 1"]
    tags = ["db"]
    [schedules.z.snapshots]
    frequent = 1
    yearly = 6
    [schedules.z.targets.usb]
    endpoint = "local"
    dataset = "usb/vm"
    port = 2222
    key = "/root/key"
    speed-limit = 9
    every = 1440
    keep = { daily = 60, custom = 5 }
    windows = ["22:00-06:00", "Sat 08:00-Sun 20:00"]
    when-reachable = true
    rpo = 1440
    [schedules.a]
    production = true
    [schedules.a.targets.far]
    endpoint = "root@b"
    """
    usb = Target(
        "usb",
        Endpoint("local"),
        "usb/vm",
        2222,
        "/root/key",
        9,
        1440,
        {SnapshotType.CUSTOM: 5, SnapshotType.DAILY: 60},
        (Window(1320, 360), Window(7680, 9840, weekly=True)),
        when_reachable=True,
        rpo_minutes=1440,
    )
    assert schedules_from(tmp_path, text) == (
        Schedule(
            "z",
            Selection(vms=("web 1",), tags=("db",)),
            {SnapshotType.FREQUENT: 1, SnapshotType.YEARLY: 6},
            (usb,),
        ),
        Schedule("a", Selection(production=True), {}, (Target("far", Endpoint("b", "root")),)),
    )


def test_without_the_table_there_is_none(tmp_path: Path) -> None:
    assert schedules_from(tmp_path, "") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schedules = 1", "schedules: found the number 1, expected a table"),
        ("schedules.a = 1", "schedules: found an object, expected a table for each key"),
        ('[schedules."a.b"]', "schedules.\"a.b\": 'a.b' cannot name a schedule or a target"),
        (DOES, "schedules.a: takes no VM, expected one of: production = true, vms, tags"),
        (TAKES, "schedules.a: does nothing, expected [….snapshots] or a target"),
        (f"{TAKES}x = 1", "schedules.a.x: found an unknown key, expected one of: production, snapshots, ta"),
        (f'{TAKES}vms = ["a/b"]', "schedules.a.vms[0]: 'a/b' is no name of a VM"),
        (
            "[schedules.a]\nproduction = 1",
            "schedules.a.production: found the number 1, expected true or false",
        ),
        (f"{TAKES}snapshots.custom = 1", "schedules.a.snapshots.custom: found an unknown key"),
        (
            f"{TAKES}snapshots.daily = 0",
            "schedules.a.snapshots.daily: found the number 0, expected a whole number of at least 1",
        ),
        (f"{TAKES}targets.t = {{}}", "schedules.a.targets.t.endpoint: found nothing, expected a node"),
        (f'{TAKES}targets."-t" = {{}}', "schedules.a.targets.-t: '-t' cannot name a schedule or a target"),
        (f'{TAKES}targets.t.endpoint = "-x"', "schedules.a.targets.t.endpoint: '-x' is not an endpoint"),
        (
            f'{TAKES}targets.t.endpoint = "local"',
            "schedules.a.targets.t.dataset: found nothing, and local needs one",
        ),
        (f'{TAKES}{SENDS}dataset = "/x"', "schedules.a.targets.t.dataset: '/x' is not a dataset name"),
        (
            f"{TAKES}{SENDS}port = 65536",
            "schedules.a.targets.t.port: found the number 65536, expected a whole number of at most 65535",
        ),
        (
            f'{TAKES}{SENDS}key = "id_rsa"',
            'schedules.a.targets.t.key: found the text "id_rsa", expected a path that begins with /',
        ),
        *(
            (
                f"{TAKES}{SENDS}every = {every}",
                f"schedules.a.targets.t.every: found the number {every}, expected minutes that divide a day",
            )
            for every in (-60, 0, 4, 7, 2880)
        ),
        (
            f"{TAKES}{SENDS}rpo = 59",
            "schedules.a.targets.t.rpo: found the number 59, expected at least 60, which is how often",
        ),
        (f"{TAKES}{SENDS}windows = []", "schedules.a.targets.t.windows: found an empty list"),
        (f'{TAKES}{SENDS}windows = ["1-2"]', "schedules.a.targets.t.windows[0]: '1-2' is no window"),
        (f"{TAKES}{SENDS}keep.dayly = 1", "schedules.a.targets.t.keep.dayly: found an unknown key"),
        (
            f'{TAKES}{SENDS}[schedules.a.targets.u]\nendpoint = "b"',
            "schedules.a: u: t is the same place",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        schedules_from(tmp_path, text)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            """
            [schedules.a]
            production = true
            targets.b_c.endpoint = "x"
            [schedules.a_b]
            production = true
            targets.c.endpoint = "y"
            """,
            "schedules.a_b: c would be called a_b_c, and so is b_c of a",
        ),
        (
            """
            [schedules.a]
            production = true
            targets.b-c.endpoint = "x"
            [schedules.a-b]
            production = true
            targets.c.endpoint = "y"
            """,
            "schedules.a-b: c would be called hoster-a-b-c, and so is b-c of a",
        ),
        (
            """
            [schedules.a]
            production = true
            snapshots.daily = 1
            targets.daily.endpoint = "x"
            """,
            "schedules.a: daily would be called a_daily, and so is daily of a",
        ),
        (
            """
            [schedules.a]
            vms = ["web", "db"]
            snapshots.daily = 1
            [schedules.b]
            vms = ["db"]
            snapshots.daily = 9
            """,
            "schedules.b: daily: db is named by a for the same already",
        ),
        (
            """
            [schedules.a]
            vms = ["web"]
            targets.t.endpoint = "x"
            [schedules.b]
            vms = ["web"]
            targets.u.endpoint = "x"
            """,
            "schedules.b: u: web is named by a for the same already",
        ),
    ],
)
def test_schedules_that_contradict_each_other_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        schedules_from(tmp_path, text)
    assert said in caught.value.message


def test_a_vm_may_be_named_twice_for_different_things(tmp_path: Path) -> None:
    text = """
    [schedules.a]
    vms = ["web"]
    snapshots.daily = 1
    targets.t.endpoint = "x"
    [schedules.b]
    vms = ["web"]
    snapshots.hourly = 1
    targets.t.endpoint = "y"
    targets.u = { endpoint = "x", dataset = "usb/vm" }
    """
    assert len(schedules_from(tmp_path, text)) == 2
