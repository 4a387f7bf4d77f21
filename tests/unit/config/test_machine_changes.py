"""Changes to a vm_config.json, and what survives a rewrite whatever it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields

from hoster.config.machine_file import (
    MachineChanges,
    MachineFile,
    machine_file_bytes,
    new_machine_file,
    parse_machine_file,
    with_changes,
)
from hoster.config.machine_keys import MACHINE, Kind
from hoster.errors import ConfigurationError
from hoster.model.machines import (
    Disk,
    FailoverStrategy,
    MachineConfig,
)

WRITTEN_BY_HOSTER = (Path(__file__).parent / "vm_config.json").read_bytes()

KNOWN_NAMES = {key.name for key in MACHINE.keys} | {"live_status"}
TEXT_FIELDS = [
    key.field for key in MACHINE.keys if key.kind is Kind.TEXT and key.field != "failover_strategy"
]


def machine(text: str) -> MachineFile:
    return parse_machine_file(text.encode(), "vm_config.json")


def document(machine_file: MachineFile) -> Any:
    return json.loads(machine_file_bytes(machine_file))


def test_a_change_changes_its_key_and_nothing_else() -> None:
    before = parse_machine_file(WRITTEN_BY_HOSTER, "web1")

    after = with_changes(before, parent_host="backup1", production=False)

    expected = WRITTEN_BY_HOSTER.replace(b'"production": true', b'"production": false')
    expected = expected.replace(b'"parent_host": "hoster-test-0101"', b'"parent_host": "backup1"')
    assert machine_file_bytes(after) == expected
    assert after.config.parent_host == "backup1"
    assert machine_file_bytes(before) == WRITTEN_BY_HOSTER


def test_a_disk_that_is_changed_in_its_place_keeps_its_unknown_keys() -> None:
    before = machine('{"disks": [{"disk_image": "a", "x": 1}, {"disk_image": "b", "x": 2}]}')

    after = with_changes(before, disks=(Disk(image="a"), Disk(image="c")))

    assert [(disk["disk_image"], disk["x"]) for disk in document(after)["disks"]] == [("a", 1), ("c", 2)]


def test_disks_that_are_moved_added_or_removed_keep_what_is_theirs() -> None:
    before = machine('{"disks": [{"disk_image": "a", "x": 1}, {"disk_image": "b", "x": 2}]}')

    moved = with_changes(before, disks=(Disk(image="b"), Disk(image="a")))
    added = with_changes(before, disks=(Disk(image="c"), *before.config.disks))
    removed = with_changes(before, disks=before.config.disks[1:])

    assert [disk["x"] for disk in document(moved)["disks"]] == [2, 1]
    assert [disk.get("x") for disk in document(added)["disks"]] == [None, 1, 2]
    assert [disk["x"] for disk in document(removed)["disks"]] == [2]


def test_two_equal_disks_each_keep_their_own_unknown_keys() -> None:
    before = machine('{"disks": [{"disk_image": "a", "x": 1}, {"disk_image": "a", "x": 2}]}')

    assert with_changes(before, disks=before.config.disks) == before


def test_a_changed_failover_strategy_is_written_and_an_unchanged_one_is_left_out() -> None:
    before = machine("{}")

    assert "failover_strategy" not in document(with_changes(before, memory="2G"))
    after = with_changes(before, failover_strategy=FailoverStrategy.CHANGE_PARENT)
    assert document(after)["failover_strategy"] == "change_parent"


def test_a_strategy_that_nobody_knows_is_kept_until_it_is_changed() -> None:
    before = machine('{"failover_strategy": "prayer"}')

    assert before.config.failover_strategy is FailoverStrategy.CHANGE_PARENT
    assert document(with_changes(before, memory="2G"))["failover_strategy"] == "prayer"


def test_a_change_to_something_of_another_kind_is_refused() -> None:
    wrong: Any = "yes"
    with pytest.raises(ConfigurationError, match=r"production.*expected true or false"):
        with_changes(machine("{}"), production=wrong)


def test_a_new_file_belongs_to_this_node_and_holds_the_given_disks() -> None:
    disk = Disk("nvme", "internal", "disk0.img", "OS Drive")

    new = new_machine_file("node1", [disk], production=True, uuid="7a2f")

    assert new.config == MachineConfig(
        production=True,
        include_host_ssh_keys=True,
        cpu_sockets=1,
        cpu_cores=2,
        memory="2G",
        loader="uefi",
        os_type="custom",
        os_comment="Custom OS",
        owner="system",
        parent_host="node1",
        uuid="7a2f",
        description="-",
        disks=(disk,),
    )
    assert parse_machine_file(machine_file_bytes(new), "web1") == new
    assert document(new)["tags"] == []


def test_every_field_of_a_machine_has_a_key_and_can_be_changed() -> None:
    hints = get_type_hints(MachineConfig)

    assert [key.field for key in MACHINE.keys] == [field.name for field in fields(MachineConfig)]
    assert get_type_hints(MachineChanges) == hints
    assert machine("{}").config == MachineConfig()


DISK_NAMES = {
    *("disk_type", "disk_location", "disk_image", "disk_input_size", "comment"),
    *("total_bytes", "total_human", "used_bytes", "used_human"),
}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
UNKNOWN = st.dictionaries(st.text().filter(lambda name: name.lower() not in KNOWN_NAMES), JSON_VALUES)


@settings(deadline=None)
@given(UNKNOWN, st.booleans())
def test_any_unknown_keys_survive_a_rewrite(unknown: dict[str, Any], escape: bool) -> None:
    read = parse_machine_file(json.dumps(unknown, ensure_ascii=escape).encode(), "vm_config.json")

    after = with_changes(read, parent_host="node2", tags=("a",))

    kept = {name: value for name, value in document(after).items() if name not in KNOWN_NAMES}
    assert kept == unknown
    assert list(kept) == list(unknown)
    again = parse_machine_file(machine_file_bytes(after), "vm_config.json")
    assert machine_file_bytes(again) == machine_file_bytes(after)


@settings(deadline=None)
@given(UNKNOWN.filter(lambda keys: not {"disk_type", "disk_location", "disk_image"} & set(keys)))
def test_any_unknown_keys_of_a_disk_survive_a_change_of_that_disk(unknown: dict[str, Any]) -> None:
    inner = {name: value for name, value in unknown.items() if name.lower() not in DISK_NAMES}
    read = machine(json.dumps({"disks": [inner | {"disk_image": "disk0.img"}]}))

    after = with_changes(read, disks=(Disk(image="disk1.img"),))

    [disk] = document(after)["disks"]
    assert {name: value for name, value in disk.items() if name not in DISK_NAMES} == inner
    assert disk["disk_image"] == "disk1.img"


def test_of_disks_that_differ_in_unknown_keys_only_each_keeps_its_own() -> None:
    read = machine('{"disks": [{"disk_image": "a", "note": 1}, {"disk_image": "a", "note": 2}]}')

    changed = with_changes(read, disks=(Disk(image="b"), Disk(image="a")))
    shorter = with_changes(read, disks=(Disk(image="a"),))

    assert [(disk["disk_image"], disk["note"]) for disk in document(changed)["disks"]] == [("b", 1), ("a", 2)]
    assert [disk["note"] for disk in document(shorter)["disks"]] == [1]


@settings(deadline=None)
@given(st.sampled_from(TEXT_FIELDS), st.text())
def test_any_text_of_any_key_round_trips(field: str, text: str) -> None:
    changes: Any = {field: text}
    changed = with_changes(parse_machine_file(WRITTEN_BY_HOSTER, "web1"), **changes)

    again = parse_machine_file(machine_file_bytes(changed), "web1")

    assert getattr(again.config, field) == text
    assert again == changed


@settings(deadline=None)
@given(st.text(), st.text(), st.lists(st.text()), st.integers(0, 2**60))
def test_any_text_of_a_disk_or_a_tag_round_trips(image: str, kind: str, tags: list[str], size: int) -> None:
    disk = Disk(kind, "somewhere", image, image, size)
    changed = with_changes(machine("{}"), disks=(disk,), tags=tuple(tags))

    again = parse_machine_file(machine_file_bytes(changed), "web1")

    assert again.config.disks == (disk,)
    assert again.config.tags == tuple(tags)
