"""What a guest's cloud-init is told, and the CD that holds it, read back by other means."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycdlib.pycdlib import PyCdlib

from hoster.cloudinit.passwords import Secrets, new_instance_id, new_secrets
from hoster.cloudinit.seed import FILE_NAMES, Interface, Seed, seed, seed_image

CARD = Interface("58:9c:fc:00:00:01", "10.0.0.7/24", "10.0.0.1", ("10.0.0.1",), "example.lan")


def made(
    ssh_keys: tuple[str, ...] = ("ssh-ed25519 AAAA root@node1",), interface: Interface | None = CARD
) -> Seed:
    return seed(
        hostname="web1",
        instance_id="iid-1",
        root_password="for-root",
        gwitsuper_password="for-gwitsuper",
        ssh_keys=ssh_keys,
        interface=interface,
    )


def test_the_accounts_are_the_originals_with_their_passwords_and_the_nodes_keys() -> None:
    text = made().files["user-data"].decode()

    assert text.startswith("#cloud-config\n")
    told = json.loads(text.partition("\n")[2])
    assert [user if isinstance(user, str) else user["name"] for user in told["users"]] == [
        "default",
        "root",
        "gwitsuper",
    ]
    assert all(user["ssh_authorized_keys"] == ["ssh-ed25519 AAAA root@node1"] for user in told["users"][1:])
    assert all(user["lock_passwd"] is False for user in told["users"][1:])
    assert told["chpasswd"] == {
        "expire": False,
        "users": [
            {"name": "root", "password": "for-root", "type": "text"},
            {"name": "gwitsuper", "password": "for-gwitsuper", "type": "text"},
        ],
    }


def test_without_keys_there_is_no_empty_list_of_them() -> None:
    assert b"ssh_authorized_keys" not in made(ssh_keys=()).files["user-data"]


def test_the_instance_and_the_name_are_told() -> None:
    assert json.loads(made().files["meta-data"]) == {"instance-id": "iid-1", "local-hostname": "web1"}


def test_the_card_is_found_by_its_mac_and_gets_address_route_and_name_server() -> None:
    assert json.loads(made().files["network-config"]) == {
        "version": 2,
        "ethernets": {
            "interface0": {
                "match": {"macaddress": "58:9c:fc:00:00:01"},
                "set-name": "eth0",
                "addresses": ["10.0.0.7/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}],
                "nameservers": {"addresses": ["10.0.0.1"], "search": ["example.lan"]},
            }
        },
    }


def test_what_a_guest_must_not_rename_or_search_is_left_out() -> None:
    plain = Interface("58:9c:fc:00:00:01", "fd00::7/64", "fd00::1", ("fd00::1",), "", None)

    card = json.loads(made(interface=plain).files["network-config"])["ethernets"]["interface0"]

    assert "set-name" not in card
    assert card["nameservers"] == {"addresses": ["fd00::1"]}
    assert (card["gateway6"], "routes" in card) == ("fd00::1", False)


def test_a_vm_without_a_card_has_an_empty_network() -> None:
    assert json.loads(made(interface=None).files["network-config"]) == {"version": 2, "ethernets": {}}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_as_it_was_and_holds_nothing_that_yaml_does_not_take(text: str) -> None:
    data = made(ssh_keys=(text,)).files["user-data"].decode()

    told = json.loads(data.partition("\n")[2])
    assert told["users"][1]["ssh_authorized_keys"] == [text]
    # YAML 1.1, 5.1: what a stream may hold as it is
    allowed = r"[\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*"
    assert re.fullmatch(allowed, data)


def held(image: PyCdlib, facet: str) -> dict[str, bytes]:
    """The files of a CD by their names in Joliet (``joliet_path``) or Rock Ridge (``rr_path``)."""
    found: dict[str, bytes] = {}
    for child in image.list_children(**{facet: "/"}):
        if child.is_dot() or child.is_dotdot():
            continue
        joliet = facet == "joliet_path"
        name = child.file_identifier().decode("utf-16-be") if joliet else child.rock_ridge.name().decode()
        out = io.BytesIO()
        image.get_file_from_iso_fp(out, **{facet: f"/{name}"})
        found[name] = out.getvalue()
    return found


def test_the_cd_holds_the_files_under_their_names_in_joliet_and_in_rock_ridge(tmp_path: Path) -> None:
    contents = made()
    path = tmp_path / "seed.iso"
    path.write_bytes(seed_image(contents))

    image = PyCdlib()
    image.open(str(path))
    try:
        assert image.pvd.volume_identifier.decode().rstrip() == "cidata"
        assert set(contents.files) == set(FILE_NAMES)
        assert held(image, "joliet_path") == held(image, "rr_path") == dict(contents.files)
    finally:
        image.close()


def test_the_cd_shows_its_label_where_a_kernel_looks_for_it() -> None:
    image = seed_image(made())

    assert image[0x8001:0x8006] == b"CD001"
    assert image[0x8028:0x8048].rstrip() == b"cidata"
    assert len(image) % 2048 == 0


def test_passwords_are_long_plain_and_never_twice_the_same() -> None:
    made_ones = [new_secrets() for _ in range(50)]

    words = [word for one in made_ones for word in (one.root, one.gwitsuper, one.vnc)]
    assert len(set(words)) == len(words)
    assert all(
        re.fullmatch("[A-Za-z0-9]{34}", word) for one in made_ones for word in (one.root, one.gwitsuper)
    )
    assert all(re.fullmatch("[A-Za-z0-9]{8}", one.vnc) for one in made_ones)
    assert set("".join(words)) >= set("abcXYZ019")


def test_each_instance_is_another_one() -> None:
    found = {new_instance_id() for _ in range(50)}
    assert len(found) == 50
    assert all(re.fullmatch("iid-[a-z0-9]{12}", name) for name in found)


@pytest.mark.parametrize("shown", [repr(Secrets("r00t", "sup3r", "scr33n")), repr(made())])
def test_no_password_gets_into_a_message_by_way_of_a_value(shown: str) -> None:
    assert not any(word in shown for word in ("r00t", "sup3r", "scr33n", "for-root", "for-gwitsuper"))
