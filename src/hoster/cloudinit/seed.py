"""What a guest's cloud-init is told: the three files of its NoCloud data source, and the CD that holds them.

Pure but for the CD's own time stamps. The files are JSON, which is YAML as well, so that no text of a user
can mean anything else than itself. They hold what cloud-init 22.3 and later understand.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

FILE_NAMES = ("user-data", "meta-data", "network-config")

VOLUME_ID = "cidata"
"""By this label cloud-init finds the CD."""

_READ_ONLY_BY_ROOT = 0o100400
_NOT_IN_YAML = re.compile("[\x7f-\x9f\ufeff\ufffe\uffff]")
_ISO_NAMES = {"user-data": "USERDATA", "meta-data": "METADATA", "network-config": "NETCONF"}


class Interface(Struct, frozen=True):
    """The guest's first network card: ``address`` with its prefix, such as ``10.0.0.7/24``."""

    mac: str
    address: str
    gateway: str
    dns_servers: tuple[str, ...]
    search_domain: str
    name: str | None = "eth0"
    """What the guest is to call it; None leaves that to the guest."""


class Seed(Struct, frozen=True):
    """The three files: their names, and what is in them."""

    files: Mapping[str, bytes]

    def __repr__(self) -> str:
        """Not what is in them: passwords."""
        return f"Seed({', '.join(self.files)})"


def seed(
    *,
    hostname: str,
    instance_id: str,
    root_password: str,
    gwitsuper_password: str,
    ssh_keys: Sequence[str],
    interface: Interface | None,
) -> Seed:
    """The files for one VM; without an ``interface`` its network is left alone."""
    users = _user_data(root_password, gwitsuper_password, ssh_keys)
    return Seed(
        {
            "user-data": b"#cloud-config\n" + _yaml(users),
            "meta-data": _yaml({"instance-id": instance_id, "local-hostname": hostname}),
            "network-config": _yaml(_network_config(interface)),
        }
    )


def seed_image(contents: Seed) -> bytes:
    """A CD image that holds the files: label ``cidata``, with Joliet and Rock Ridge names."""
    from pycdlib.pycdlib import PyCdlib

    image = PyCdlib()
    image.new(interchange_level=3, vol_ident=VOLUME_ID, joliet=3, rock_ridge="1.09")
    for name, data in contents.files.items():
        image.add_fp(
            io.BytesIO(data),
            len(data),
            iso_path=f"/{_ISO_NAMES[name]}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
            file_mode=_READ_ONLY_BY_ROOT,
        )
    written = io.BytesIO()
    image.write_fp(written)
    image.close()
    return written.getvalue()


def _user_data(root_password: str, gwitsuper_password: str, ssh_keys: Sequence[str]) -> dict[str, object]:
    """The accounts of the original: the image's own, root, and gwitsuper, who may do everything by sudo."""
    root = {"name": "root", "lock_passwd": False}
    gwitsuper = {
        "name": "gwitsuper",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "groups": "wheel",
        "lock_passwd": False,
    }
    if ssh_keys:  # an empty list is not valid
        keys = {"ssh_authorized_keys": list(ssh_keys)}
        root |= keys
        gwitsuper |= keys
    passwords = (("root", root_password), ("gwitsuper", gwitsuper_password))
    return {
        "users": ["default", root, gwitsuper],
        "ssh_pwauth": True,
        "disable_root": False,
        "chpasswd": {
            "expire": False,
            "users": [{"name": name, "password": word, "type": "text"} for name, word in passwords],
        },
        "package_update": False,
        "package_upgrade": False,
    }


def _network_config(interface: Interface | None) -> dict[str, object]:
    """Version 2, by MAC, in words that cloud-init 22.4 of Debian 12 renders rightly as well: seen there, a
    route to ``default`` fails and one to ``::/0`` becomes ``::/64``. So the default route is a network for
    IPv4, where ``gateway4`` is deprecated, and the deprecated ``gateway6`` for IPv6.
    """
    if interface is None:
        return {"version": 2, "ethernets": {}}
    outward: dict[str, object] = {"routes": [{"to": "0.0.0.0/0", "via": interface.gateway}]}
    if ":" in interface.gateway:
        outward = {"gateway6": interface.gateway}
    nameservers: dict[str, object] = {"addresses": list(interface.dns_servers)}
    if interface.search_domain:
        nameservers["search"] = [interface.search_domain]
    card: dict[str, object] = {"match": {"macaddress": interface.mac}}
    if interface.name is not None:
        card["set-name"] = interface.name
    card |= {"addresses": [interface.address], **outward, "nameservers": nameservers}
    return {"version": 2, "ethernets": {"interface0": card}}


def _yaml(value: object) -> bytes:
    """JSON that YAML reads as the same value: what YAML does not take as it is, is escaped."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode() + b"\n"
