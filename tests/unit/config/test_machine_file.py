"""vm_config.json: what is read, what is refused and in which words, and what a rewrite keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hoster.config.machine_file import (
    MachineFile,
    machine_file_bytes,
    parse_machine_file,
)
from hoster.errors import ConfigurationError
from hoster.model.machines import (
    Disk,
    FailoverStrategy,
    MachineConfig,
    NetworkCard,
    SharedFolder,
    SshKey,
)

WRITTEN_BY_HOSTER = (Path(__file__).parent / "vm_config.json").read_bytes()


def machine(text: str) -> MachineFile:
    return parse_machine_file(text.encode(), "vm_config.json")


def written(machine_file: MachineFile) -> str:
    return machine_file_bytes(machine_file).decode()


def document(machine_file: MachineFile) -> Any:
    return json.loads(machine_file_bytes(machine_file))


def test_a_file_that_hoster_wrote_comes_back_byte_for_byte() -> None:
    assert machine_file_bytes(parse_machine_file(WRITTEN_BY_HOSTER, "web1")) == WRITTEN_BY_HOSTER


def test_a_file_that_hoster_wrote_becomes_typed_values() -> None:
    config = parse_machine_file(WRITTEN_BY_HOSTER, "web1").config

    assert config == MachineConfig(
        production=True,
        ignore_host_clock=True,
        include_host_ssh_keys=True,
        disable_xhci=True,
        cpu_sockets=1,
        cpu_cores=4,
        cpu_threads=2,
        vnc_resolution=8,
        vnc_port=5903,
        vnc_password="Nx7&q<vT2",
        memory="8G",
        loader="uefi",
        os_type="debian12",
        os_comment="Debian 12",
        owner="system",
        parent_host="hoster-test-0101",
        failover_strategy=FailoverStrategy.CIRESET,
        vga="on",
        uuid="7a2f2c5e-5d0e-4a46-9d7e-3b0f5f0f8c11",
        description='Büro-Server <R&D>, "quoted", back\\slash, tab\t.',
        dns_search_domain="example.lan",
        networks=(
            NetworkCard("virtio-net", "internal", "58:9c:fc:10:20:30", "10.0.101.10", "Internal Network"),
            NetworkCard("e1000", "external", "58:9c:fc:10:20:31", "192.168.8.10", ""),
        ),
        disks=(
            Disk("nvme", "internal", "disk0.img", "OS Drive"),
            Disk("virtio-scsi-of-the-future", "nfs", "/mnt/archive/web1.img", "Archive", 20),
            Disk("ahci-cd", "internal", "seed.iso", "Cloud Init ISO"),
        ),
        ssh_keys=(
            SshKey(
                "System", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPmZ root@hoster-test-0101", "Host SSH key"
            ),
        ),
        tags=("web", "customer-7"),
        passthru=("4/0/0", "-s 12,passthru,5/0/0"),
        shares=(SharedFolder("media", "/tank/media", True),),
        custom_options=("pci.0.10.0.device=hda",),
    )


def test_size_fields_are_accepted_and_not_written_again() -> None:
    sizes = '"total_bytes": 10737418240, "total_human": "10.00G", "used_bytes": 1, "used_human": "1K"'
    read = machine(f'{{"disks": [{{"disk_image": "disk0.img", {sizes}, "colour": "red"}}]}}')

    assert document(read)["disks"] == [
        {"disk_type": "", "disk_location": "", "disk_image": "disk0.img", "comment": "", "colour": "red"}
    ]


def test_keys_are_put_in_hosters_order_with_unknown_ones_last_in_the_order_found() -> None:
    read = machine('{"zebra": 1, "tags": null, "memory": "2G", "aardvark": 2, "production": true}')

    names = list(document(read))

    assert names.index("production") < names.index("memory") < names.index("tags")
    assert names[-2:] == ["zebra", "aardvark"]


def test_an_empty_object_is_written_with_every_key_that_hoster_always_writes() -> None:
    assert document(machine("{}")) == {
        "production": False,
        "include_host_ssh_keys": False,
        "cpu_sockets": 0,
        "cpu_cores": 0,
        "vnc_port": 0,
        "vnc_password": "",
        "memory": "",
        "loader": "",
        "os_type": "",
        "os_comment": "",
        "owner": "",
        "parent_host": "",
        "description": "",
        "networks": None,
        "disks": None,
        "vm_ssh_keys": None,
        "tags": None,
    }


def test_keys_that_hoster_omits_when_empty_are_omitted() -> None:
    empty = {
        "ignore_host_clock": False,
        "disable_xhci": False,
        "cpu_threads": 0,
        "vnc_resolution": 0,
        "failover_strategy": "",
        "vga": "",
        "uuid": "",
        "dns_search_domain": "",
        "passthru": [],
        "9p_shares": None,
        "custom_options": [],
    }
    read = machine(json.dumps({**empty, "disks": [{"disk_input_size": 0}]}))

    assert not set(empty) & set(document(read))
    assert "disk_input_size" not in document(read)["disks"][0]


def test_an_empty_list_stays_a_list_and_null_stays_null() -> None:
    read = machine('{"networks": [], "disks": null, "tags": []}')

    assert document(read)["networks"] == []
    assert document(read)["disks"] is None
    assert document(read)["tags"] == []
    assert read.config.disks == ()


def test_strings_are_escaped_as_go_escapes_them() -> None:
    read = machine('{"description": "<a> & \\u2028\\u2029 \\u0001 \\" \\\\ / é \\ud83d\\ude00 \\u007f"}')

    assert '"description": "\\u003ca\\u003e \\u0026 \\u2028\\u2029 \\u0001 \\" \\\\ / é 😀 \x7f"' in written(
        read
    )


def test_the_indent_is_three_spaces_and_there_is_no_final_newline() -> None:
    text = written(machine('{"tags": ["a"], "x": {"y": [[], {}]}}'))

    assert text.startswith('{\n   "production": false,\n')
    assert '\n   "tags": [\n      "a"\n   ],\n' in text
    assert text.endswith('\n   "x": {\n      "y": [\n         [],\n         {}\n      ]\n   }\n}')


@pytest.mark.parametrize(
    "number", ["-0", "1.10", "1e5", "1E400", "0.1000000000000000055511151231257827", "9" * 5000]
)
def test_numbers_of_unknown_keys_keep_their_digits(number: str) -> None:
    assert f'"x": {number}\n' in written(machine(f'{{"x": {number}}}'))


def test_a_lone_surrogate_in_an_unknown_key_survives() -> None:
    assert '"x": "\\udc80"' in written(machine('{"x": "\\udc80"}'))


def test_a_byte_order_mark_is_accepted_and_not_written() -> None:
    read = parse_machine_file(b'\xef\xbb\xbf{"memory": "2G"}', "vm_config.json")

    assert read.config.memory == "2G"
    assert written(read).startswith("{")


@pytest.mark.parametrize(("text", "number"), [("4", 4), ("+4", 4), ("-1", -1), ("007", 7)])
def test_whole_numbers_may_be_texts_as_in_old_files(text: str, number: int) -> None:
    read = machine(
        json.dumps({"cpu_cores": text, "cpu_sockets": text, "cpu_threads": text, "vnc_port": text})
    )

    config = read.config
    assert {config.cpu_cores, config.cpu_sockets, config.cpu_threads, config.vnc_port} == {number}
    assert document(read)["cpu_cores"] == number


@pytest.mark.parametrize(
    ("text", "production"),
    [
        ('{"live_status": "production"}', True),
        ('{"live_status": "prod"}', True),
        ('{"live_status": "testing"}', False),
        ('{"live_status": null}', False),
        ('{"live_status": "production", "production": false}', False),
        ('{"live_status": "testing", "production": true}', True),
        ('{"live_status": 7, "Production": true}', True),
    ],
)
def test_live_status_counts_where_there_is_no_production_key(text: str, production: bool) -> None:
    read = machine(text)

    assert read.config.production is production
    assert document(read)["production"] is production
    assert "live_status" not in document(read)


def test_a_known_key_in_other_letters_counts_as_it_does_for_hoster() -> None:
    read = machine('{"Production": true, "DISKS": [{"Disk_Image": "disk0.img"}]}')

    assert read.config == MachineConfig(production=True, disks=(Disk(image="disk0.img"),))
    assert "Production" not in document(read)


@pytest.mark.parametrize("depth", [10, 63])
def test_ten_and_more_levels_of_an_unknown_key_survive(depth: int) -> None:
    nested = "[" * depth + "]" * depth

    assert document(machine(f'{{"x": {nested}}}'))["x"] == json.loads(nested)


MALFORMED = [
    ("empty", b"", ["found an empty file", "expected a JSON object"]),
    ("blank", b" \n", ["found an empty file", "expected a JSON object"]),
    ("only a BOM", b"\xef\xbb\xbf", ["found an empty file"]),
    ("truncated", b'{\n   "memory": "2G",\n   "disks": [', [":3:14:", "found the end of the file"]),
    ("truncated text", b'{"memory": "2', [":1:12:", "Unterminated string"]),
    ("comment", b'{\n// memory\n"memory": "2G"}', [":2:1:", "found something that is not JSON"]),
    ("two objects", b"{}\n{}", [":2:1:", "Extra data"]),
    ("latin-1", b'{\n"description": "B\xfcro"}', [":2:", "found the byte 0xfc", "expected text in UTF-8"]),
    ("NaN", b'{"disks": [{"x": NaN}]}', ["disks[0].x", "found NaN", "expected strict JSON"]),
    ("-Infinity", b'{"x": -Infinity}', ["x: found -Infinity"]),
    ("a list", b"[]", ["found a list", "expected an object"]),
    ("a text", b'"memory"', ['found the text "memory"', "expected an object"]),
    ("null", b"null", ["found null", "expected an object"]),
    ("NaN alone", b"NaN", ["found NaN"]),
    ("duplicate", b'{"memory": "2G", "memory": "4G"}', ['found the key "memory" more than once']),
    (
        "duplicate inside",
        b'{"disks": [{}, {"comment": "", "comment": ""}]}',
        ["disks[1]", 'found the key "comment" more than once'],
    ),
    ("two spellings", b'{"Memory": "2G", "memory": "4G"}', ["the key memory in two spellings"]),
    ("deep", b'{"x": ' + b"[" * 64 + b"]" * 64 + b"}", ["more than 64 levels"]),
    ("very deep", b'{"x": ' + b"[" * 400_000, ["more than 64 levels"]),
    ("very deep and closed", b'{"x":' * 200_000 + b"1" + b"}" * 200_000, ["more than 64 levels"]),
    ("number as memory", b'{"memory": 2048}', ["memory", "found the number 2048", "expected a text"]),
    ("text as flag", b'{"production": "true"}', ['found the text "true"', "expected true or false"]),
    ("number as flag", b'{"production": 1}', ["production", "found the number 1", "expected true or false"]),
    ("flag as number", b'{"cpu_cores": true}', ["cpu_cores", "found true", "expected a whole number"]),
    ("fraction", b'{"cpu_cores": 1.5}', ["found the number 1.5", "expected a whole number"]),
    ("huge", b'{"cpu_cores": 99999999999999999999}', ["cpu_cores", "expected a whole number"]),
    ("unit", b'{"cpu_cores": "2 cores"}', ['found the text "2 cores"', "expected a whole number"]),
    ("Arabic digits", '{"cpu_cores": "٣"}'.encode(), ["expected a whole number"]),
    ("object as list", b'{"disks": {}}', ["disks", "found an object", "expected a list of objects"]),
    ("text in a list", b'{"disks": ["disk0.img"]}', ["disks[0]", 'found the text "disk0.img"', "an object"]),
    ("null in a list", b'{"disks": [null]}', ["disks[0]", "found null", "expected an object"]),
    (
        "disk type",
        b'{"disks": [{}, {"disk_type": ["nvme"]}]}',
        ["disks[1].disk_type", "found a list", "expected a text"],
    ),
    ("tags", b'{"tags": "web"}', ["tags", 'found the text "web"', "expected a list of texts"]),
    ("a tag", b'{"tags": ["a", 2]}', ["tags[1]", "found the number 2", "expected a text"]),
    ("share", b'{"9p_shares": [{"read_only": "no"}]}', ["9p_shares[0].read_only", "expected true or false"]),
    ("live_status", b'{"live_status": true}', ["live_status", "found true", "expected a text"]),
    ("half a character", b'{"owner": "\\ud800"}', ["owner", "lone surrogate"]),
    ("half in a tag", b'{"tags": ["\\ud800"]}', ["tags[0]", "lone surrogate"]),
    ("odd key", b'{"a.b c": NaN}', ['"a.b c"', "found NaN"]),
]


@pytest.mark.parametrize(
    ("data", "words"), [(data, words) for _, data, words in MALFORMED], ids=[row[0] for row in MALFORMED]
)
def test_malformed_content_is_refused_with_its_place_and_what_was_expected(
    data: bytes, words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_machine_file(data, "/tank/vms/web1/vm_config.json")

    message = caught.value.message
    assert message.startswith("/tank/vms/web1/vm_config.json:")
    assert [word for word in words if word not in message] == []


def test_a_password_of_the_wrong_type_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        machine('{"vnc_password": 123456}')

    assert "vnc_password: found a number, expected a text" in caught.value.message
