"""A VM gets a new cloud-init set: what changes, what stays, what is refused before anything is touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hoster.cli.render import print_json
from hoster.config.files import FileMissing
from hoster.errors import Busy, ConfigurationError, OperationFailed, Refused, UsageError
from hoster.model.storage import Intent, Role
from hoster.operations.cireset import reset
from hoster.operations.inventory import look_around
from hoster.operations.power import hold_power
from hoster.planning.reset import Wishes
from hoster.testing import Says, dataset
from tests.unit.operations.resetting import CARD, CD, KEPT_KEY, KEYS, WEB, Node, config_of, reset_by


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def told(place: Path, name: str) -> Any:
    text = (place / "cloud-init-files" / name).read_text()
    return json.loads(text.removeprefix("#cloud-config\n"))


def state(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "locks" not in path.parts
    }


@contextmanager
def nothing_changes(node: Node) -> Iterator[None]:
    before = state(node.folder)
    yield
    assert state(node.folder) == before
    assert not node.runner.ran("zfs", "rename")


def test_what_is_regenerated_is_new_and_told_to_the_guest(node: Node) -> None:
    place = node.has("web", WEB)
    node.has("mail", {"vnc_port": 5900, "networks": [{"ip_address": "10.0.0.10"}]})

    report = node.reset()

    assert report.secrets is not None
    config = config_of(place)
    assert config["parent_host"] == "node1"
    assert (config["vnc_port"], config["vnc_password"]) == (5901, report.secrets.vnc)
    assert config["networks"][0] == {
        "network_adaptor_type": "e1000",
        "network_bridge": "internal",
        "network_mac": report.mac,
        "ip_address": "10.0.0.11",
        "comment": "the internal network",
        "x_vlan": 12,
    }
    users = told(place, "user-data")
    assert [user["password"] for user in users["chpasswd"]["users"]] == [
        report.secrets.root,
        report.secrets.gwitsuper,
    ]
    assert users["users"][1]["ssh_authorized_keys"] == list(KEYS)
    assert told(place, "meta-data") == {"instance-id": report.instance_id, "local-hostname": "web"}
    card = told(place, "network-config")["ethernets"]["interface0"]
    assert card["match"]["macaddress"] == report.mac != CARD["network_mac"]
    assert card["addresses"] == [report.ip_address] == ["10.0.0.11/24"]
    assert card["nameservers"] == {"addresses": ["10.0.0.1"], "search": ["node1.internal.lan"]}
    assert report.secrets.root.encode() in (place / "seed.iso").read_bytes()
    assert {p.name for p in place.iterdir()} == {"vm_config.json", "seed.iso", "cloud-init-files"}


def test_the_nodes_keys_take_the_place_of_the_vms_own_and_those_are_named(node: Node) -> None:
    place = node.has("web", WEB)

    report = node.reset()

    assert config_of(place)["vm_ssh_keys"] == [
        KEPT_KEY,
        {"key_owner": "System", "key_value": KEYS[1], "comment": ""},
    ]
    assert any("loses (1): anna's" in note for note in report.notes)
    assert any("from the network outside to internal" in note for note in report.notes)


def test_a_vm_without_a_network_card_needs_no_networks_of_the_node(node: Node) -> None:
    place = node.has("web", {"disks": [CD]})
    (node.folder / "network_config.json").unlink()

    report = node.reset()

    assert (report.network, report.ip_address, report.mac, report.dns_server) == (None,) * 4
    assert told(place, "network-config") == {"version": 2, "ethernets": {}}
    assert config_of(place)["networks"] is None


def test_a_vm_that_does_not_show_its_seed_gets_one_and_that_is_said(node: Node) -> None:
    place = node.has("web", {"disks": [CD | {"disk_image": "seed-empty.iso"}]})

    report = node.reset()

    assert any("no seed.iso" in note for note in report.notes)
    assert config_of(place)["disks"][0]["disk_image"] == "seed-empty.iso"
    assert (place / "seed.iso").read_bytes() != b"old"


def test_names_of_cards_and_search_domain_follow_the_configuration(node: Node) -> None:
    place = node.has("web", WEB | {"os_type": "freebsd13zfs", "dns_search_domain": "example.lan"})

    node.reset(dns_server="9.9.9.9")

    card = told(place, "network-config")["ethernets"]["interface0"]
    assert "set-name" not in card
    assert card["nameservers"] == {"addresses": ["9.9.9.9"], "search": ["example.lan"]}


def test_a_dry_run_shows_all_but_passwords_and_changes_nothing(node: Node) -> None:
    node.has("web", WEB)

    with nothing_changes(node):
        report = node.reset(new_name="web2", dry_run=True)

    assert (report.vm, report.dataset, report.was_called) == ("web2", "tank/vm/web2", "web")
    assert (report.ip_address, report.vnc_port) == ("10.0.0.10/24", 5900)
    assert (report.secrets, report.instance_id, report.dry_run) == (None, None, True)


def test_a_new_name_is_given_last_and_is_what_the_guest_is_called(node: Node) -> None:
    place = node.has("web", WEB, history="d1@1")
    node.datasets.append(dataset("tank/vm/web.branch-20240101T000000Z", role=Role.BRANCH))

    report = node.reset(new_name="web2")

    assert node.runner.commands[-1] == ("zfs", "rename", "tank/vm/web", "tank/vm/web2")
    assert node.seen_at_rename["parent_host"] == "node1"
    assert told(place, "meta-data")["local-hostname"] == "web2"
    assert (report.vm, report.dataset) == ("web2", "tank/vm/web2")
    assert any("its replicas are still called web" in note for note in report.notes)
    assert any("hoster vm branches web" in note for note in report.notes)


def test_a_rename_that_fails_says_where_the_passwords_are_and_how_to_go_on(node: Node) -> None:
    node.has("web", WEB)
    node.rename_says = Says(stderr="cannot rename: dataset is busy", returncode=1)

    with pytest.raises(OperationFailed, match=r"its new set, and its old name.*busy") as caught:
        node.reset(new_name="web2")

    assert "zfs rename tank/vm/web tank/vm/web2" in caught.value.hint
    assert "cloud-init-files" in caught.value.hint


def test_the_same_name_again_is_no_new_name(node: Node) -> None:
    node.has("web", WEB)
    assert node.reset(new_name="web").vm == "web"
    assert not node.runner.ran("zfs", "rename")


@pytest.mark.parametrize("new_name", ["mail", "a/b"])
def test_a_name_that_is_taken_or_impossible_changes_nothing(node: Node, new_name: str) -> None:
    node.has("web", WEB)
    node.has("mail", {})
    with nothing_changes(node), pytest.raises((Refused, UsageError)):
        node.reset(new_name=new_name)


def test_a_vm_that_runs_is_refused(tmp_path: Path) -> None:
    node = Node(tmp_path, "web")
    node.has("web", WEB)
    with nothing_changes(node), pytest.raises(Refused, match="web runs"):
        node.reset()


def test_a_vm_that_somebody_is_starting_is_busy(node: Node) -> None:
    node.has("web", WEB)
    with nothing_changes(node), hold_power(node.context, "web"), pytest.raises(Busy):
        node.reset()


@pytest.mark.parametrize("role", [Role.REPLICA, Role.SUPERSEDED, None])
def test_what_is_not_this_nodes_own_is_refused_with_a_way_to_make_it_so(
    node: Node, role: Role | None
) -> None:
    node.has("web", WEB, role=role)
    with nothing_changes(node), pytest.raises(Refused) as caught:
        node.reset()
    assert caught.value.hint


def test_one_that_was_taken_over_is_reset_whatever_its_role_still_says(node: Node) -> None:
    place = node.has("web", WEB, role=Role.REPLICA)
    vm = look_around(node.context).named("web")

    reset(node.context, vm, Wishes())

    assert config_of(place)["parent_host"] == "node1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mounted": False}, "not mounted"),
        ({"readonly": True}, "read-only"),
        ({"marks": "swap"}, "was not finished"),
    ],
)
def test_a_dataset_that_cannot_take_it_is_refused(node: Node, changes: dict[str, Any], said: str) -> None:
    node.has("web", WEB)
    if "marks" in changes:
        intent = Intent("20240101T000000Z", 1, "-", "tank/vm/web")
        changes = {"marks": replace(node.datasets[0].marks, swap=intent)}
    node.datasets[0] = replace(node.datasets[0], **changes)
    with nothing_changes(node), pytest.raises(Refused, match=said):
        node.reset()


def test_a_node_that_knows_no_networks_says_so_before_anything_is_changed(node: Node) -> None:
    node.has("web", WEB)
    (node.folder / "network_config.json").unlink()
    with nothing_changes(node), pytest.raises(FileMissing, match=r"network_config\.json"):
        node.reset()


def test_a_strange_thing_in_the_way_is_refused(node: Node) -> None:
    place = node.has("web", WEB)
    (place / "cloud-init-files").symlink_to(node.folder)
    with nothing_changes(node), pytest.raises(ConfigurationError, match="expected a folder"):
        node.reset()


def test_vms_whose_addresses_cannot_be_known_are_named(node: Node) -> None:
    node.has("web", WEB)
    node.has("dark", {})
    node.datasets[1] = replace(node.datasets[1], mounted=False)
    assert any("dark" in note for note in node.reset().notes)


def test_what_an_earlier_run_left_is_put_right_first(node: Node) -> None:
    place = node.has("web", WEB | {"disks": [CD | {"disk_image": "seed.iso.new"}]})
    (place / "seed.iso.new").write_bytes(b"of the earlier run")

    report = node.reset()

    assert any("cut short" in note for note in report.notes)
    assert config_of(place)["disks"] == [CD]
    assert {p.name for p in place.iterdir()} == {"vm_config.json", "seed.iso", "cloud-init-files"}


def test_a_node_without_keys_says_that_only_passwords_are_left(node: Node) -> None:
    place = node.has("web", WEB)
    context = replace(node.context, settings=replace(node.context.settings, ssh_keys=()))

    report = reset_by(context, "web", Wishes())

    assert any("only passwords" in note for note in report.notes)
    assert config_of(place)["vm_ssh_keys"] == []


def test_the_report_as_json_holds_the_passwords_under_their_names(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.has("web", WEB)
    report = node.reset()
    assert report.secrets is not None
    print_json(report)
    shown = json.loads(capsys.readouterr().out)
    assert shown["secrets"]["root"] == report.secrets.root
    assert report.secrets.root not in repr(report)
