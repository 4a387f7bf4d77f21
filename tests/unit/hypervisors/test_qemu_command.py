"""The command line of QEMU, word for word where it matters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hoster.errors import ConfigurationError
from hoster.hypervisors.protocol import Drive, Guest, GuestRef
from hoster.hypervisors.qemu_command import Placement, command, hardware_address, memory_kib, notes
from hoster.model.machines import MachineConfig, NetworkCard, SharedFolder

PLAIN = Placement(accelerated=False, networks=())
FOLDER = Path("/tank/vm/web")


def guest(*drives: Drive, **config: Any) -> Guest:
    given = MachineConfig(**{"memory": "2G", "loader": "bios", **config})
    return Guest(GuestRef("web", Path("/run/h/vm/web")), FOLDER, given, drives, Path("/var/log/web.log"))


def after(words: tuple[str, ...], option: str) -> list[str]:
    """What is given with every occurrence of an option."""
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def devices(words: tuple[str, ...]) -> list[dict[str, Any]]:
    return [json.loads(text) for text in after(words, "-device")]


def test_processors_memory_clock_and_identity_are_the_configurations() -> None:
    uuid = "5b0e6a52-6a3a-4a0e-9a55-c1f0a9f1b001"
    words = command(guest(cpu_sockets=2, cpu_cores=4, cpu_threads=2, memory="512M", uuid=uuid), PLAIN)
    assert after(words, "-smp") == ["16,sockets=2,cores=4,threads=2"]
    assert after(words, "-m") == ["size=512M"]
    assert after(words, "-uuid") == [uuid]
    assert after(words, "-name") == ["web"]
    assert after(words, "-rtc") == ["base=utc"]
    assert after(command(guest(ignore_host_clock=True), PLAIN), "-rtc") == ["base=localtime"]


def test_what_is_not_said_of_the_processor_is_one() -> None:
    assert after(command(guest(), PLAIN), "-smp") == ["1,sockets=1,cores=1,threads=1"]


def test_kvm_gives_the_guest_the_nodes_own_processor() -> None:
    assert after(command(guest(), replace(PLAIN, accelerated=True)), "-cpu") == ["host"]
    assert after(command(guest(), PLAIN), "-machine") == ["q35,accel=tcg"]


@pytest.mark.parametrize(
    ("text", "mib"), [("2G", 2048), ("512m", 512), ("768", 768), ("1024K", 1), ("1T", 1024**2)]
)
def test_memory_is_understood_as_bhyve_does(text: str, mib: int) -> None:
    assert memory_kib(guest(memory=text)) == mib * 1024


def test_the_types_of_disks_in_their_order() -> None:
    drives = [
        Drive("nvme", FOLDER / "disk0.img"),
        Drive("virtio-blk", FOLDER / "data.qcow2"),
        Drive("ahci-hd", FOLDER / "old.img"),
        Drive("ahci-cd", FOLDER / "seed.iso"),
    ]
    words = command(guest(*drives), PLAIN)
    assert [(d["driver"], d.get("bus"), d.get("bootindex")) for d in devices(words)] == [
        ("nvme", None, 0),
        ("virtio-blk-pci", None, 1),
        ("ahci", None, None),
        ("ide-hd", "ahci0.0", 2),
        ("ide-cd", "ahci0.1", 3),
    ]
    nodes = [json.loads(text) for text in after(words, "-blockdev")]
    assert [(n["driver"], n.get("read-only", False)) for n in nodes] == [
        ("raw", False),
        ("qcow2", False),
        ("raw", False),
        ("raw", True),
    ]
    assert nodes[0]["file"] == {"filename": "/tank/vm/web/disk0.img", "driver": "file"}


def test_a_seventh_ahci_disk_gets_a_second_controller() -> None:
    found = devices(command(guest(*(Drive("ahci-hd", FOLDER / f"d{n}") for n in range(7))), PLAIN))
    assert [d["id"] for d in found if d["driver"] == "ahci"] == ["ahci0", "ahci1"]
    assert found[-1]["bus"] == "ahci1.0"


def test_a_volume_is_opened_past_the_buffer_cache_and_never_as_qcow2() -> None:
    words = command(guest(Drive("nvme", Path("/dev/zvol/tank/vm/web/x.qcow2"), is_volume=True)), PLAIN)
    node = json.loads(after(words, "-blockdev")[0])
    assert node["driver"] == "raw"
    assert node["file"]["driver"] == "host_device"
    assert node["file"]["cache"] == {"direct": True}
    assert node["file"]["aio"] == "native"


def test_cards_are_plugged_in_where_they_are_told_and_ask_nobody_for_something_to_boot() -> None:
    cards = (NetworkCard("virtio-net", "internal", "58:9c:fc:01:02:03"), NetworkCard("e1000", "dmz"))
    words = command(guest(networks=cards), replace(PLAIN, networks=("tap,fd=7,vhost=on", "user")))
    assert after(words, "-netdev") == ["tap,id=net0,fd=7,vhost=on", "user,id=net1"]
    assert [(d["driver"], d["mac"], d["romfile"]) for d in devices(words)] == [
        ("virtio-net-pci", "58:9c:fc:01:02:03", ""),
        ("e1000", hardware_address("web", 1), ""),
    ]
    assert hardware_address("web", 1) != hardware_address("web2", 1)


def test_the_screen_is_on_loopback_with_a_password_that_is_not_in_the_command() -> None:
    words = command(guest(vnc_port=5907, vnc_password="hush", vnc_resolution=3), PLAIN)
    assert after(words, "-vnc") == ["127.0.0.1:7,password=on"]
    assert not any("hush" in word for word in words)
    assert [(d["driver"], d.get("xres")) for d in devices(words)] == [
        ("VGA", 1024),
        ("qemu-xhci", None),
        ("usb-tablet", None),
    ]
    bare = command(guest(vnc_port=5900, disable_xhci=True), PLAIN)
    assert (after(bare, "-vnc"), [d["driver"] for d in devices(bare)]) == (["127.0.0.1:0"], ["VGA"])
    assert after(command(guest(), PLAIN), "-vnc") == []


def test_elsewhere_than_on_loopback_the_screen_needs_a_password() -> None:
    everywhere = replace(guest(vnc_port=5900), vnc_address="::")
    with pytest.raises(ConfigurationError, match="expected a password, since VNC is to listen on ::"):
        command(everywhere, PLAIN)
    config = replace(everywhere.config, vnc_password="hush")
    assert after(command(replace(everywhere, config=config), PLAIN), "-vnc") == ["[::]:0,password=on"]


def test_uefi_has_its_code_for_reading_and_the_machines_own_variables() -> None:
    words = command(guest(), replace(PLAIN, firmware=Path("/f/CODE.fd"), variables=FOLDER / "uefi-vars.fd"))
    assert after(words, "-drive") == [
        "if=pflash,unit=0,format=raw,readonly=on,file=/f/CODE.fd",
        "if=pflash,unit=1,format=raw,file=/tank/vm/web/uefi-vars.fd",
    ]


def test_shares_serial_line_and_passed_through_devices() -> None:
    share = SharedFolder("docs", "/srv/a,b", read_only=True)
    words = command(guest(shares=(share,), passthru=("4/0/0", "-43/16/1")), PLAIN)
    assert after(words, "-fsdev") == [
        "local,id=share0,security_model=passthrough,path=/srv/a,,b,readonly=on",
    ]
    found = devices(words)
    assert found[0]["mount_tag"] == "docs"
    assert [d["host"] for d in found[1:]] == ["04:00.0", "2b:10.1"]
    assert "path=/run/h/vm/web/serial,logfile=/var/log/web.console" in after(words, "-chardev")[1]


def test_options_for_qemu_are_added_and_those_for_bhyve_left_out_aloud() -> None:
    config = guest(
        custom_options=("-device virtio-rng-pci", "a.b=c"), passthru=("1/0/0",), vnc_password="123456789"
    )
    words = command(config, PLAIN)
    assert words[-2:] == ("-device", "virtio-rng-pci")
    assert not any("a.b=c" in word for word in words)
    said = " ".join(notes(config.config))
    assert "a.b=c: meant for bhyve" in said
    assert "never been tried" in said
    assert "first 8 characters" in said


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"memory": ""}, "memory: found ''"),
        ({"memory": "0"}, "memory: found '0'"),
        ({"memory": "2Gx"}, "memory: found '2Gx'"),
        ({"uuid": "x"}, "uuid: found 'x'"),
        ({"vnc_port": 80}, "vnc_port: found 80"),
        ({"networks": (NetworkCard("ne2000", "x"),)}, "networks\\[0\\].network_adaptor_type: found 'ne2000'"),
        ({"networks": (NetworkCard("e1000", "x", "58:9c"),)}, "networks\\[0\\].network_mac: found '58:9c'"),
        ({"custom_options": ("-device 'x",)}, "custom_options\\[0\\]: found \"-device 'x\""),
        ({"passthru": ("4/0",)}, "passthru\\[0\\]: found '4/0'"),
        ({"passthru": ("4/32/0",)}, "passthru\\[0\\]: found '4/32/0'"),
        ({"shares": (SharedFolder("x", "relative"),)}, "9p_shares\\[0\\]: found 'relative'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named_with_its_key(config: dict[str, Any], said: str) -> None:
    networks = ("user",) * len(config.get("networks", ()))
    with pytest.raises(ConfigurationError, match=f"/tank/vm/web/vm_config.json: {said}, expected"):
        command(guest(**config), replace(PLAIN, networks=networks))


def test_an_unknown_type_of_disk_is_named_with_its_place() -> None:
    with pytest.raises(ConfigurationError, match=r"disks\[1\]\.disk_type: found 'floppy', expected nvme or"):
        command(guest(Drive("nvme", FOLDER / "a"), Drive("floppy", FOLDER / "b")), PLAIN)
