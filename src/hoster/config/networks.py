"""The networks of this node, from network_config.json: the original's file, read and never written.

It is looked for beside the settings and then where Hoster looks. Keys that hoster has no use for are left
alone: how bridges are made is not its business.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

from hoster.config.files import FileMissing, read_small_file
from hoster.config.json_text import JsonObject, JsonValue, Place, decoded_list
from hoster.config.settings import DEFAULT_PLACES
from hoster.model.networks import IpAddress, IpNetwork, Network

NETWORKS_NAME = "network_config.json"


def find_networks_file(settings_file: Path, search: Sequence[Path] = DEFAULT_PLACES) -> Path:
    """The file to read; FileMissing, which says where it was looked for, if there is none."""
    places = tuple(dict.fromkeys((settings_file.parent, *search)))
    for folder in places:
        if os.path.lexists(folder / NETWORKS_NAME):
            return folder / NETWORKS_NAME
    raise FileMissing(
        f"there is no {NETWORKS_NAME} (looked in {', '.join(map(str, places))})",
        hint="docs/reference.md shows one; it says which addresses VMs get on this node",
    )


def read_networks(path: Path) -> tuple[Network, ...]:
    """The networks that the file names, at least one; the first is the default.

    ConfigurationError names the file, the place, what was found and what was expected.
    """
    where = Place(str(path))
    items = decoded_list(read_small_file(path, follow_symlink=True).data, str(path))
    networks = tuple(_network(item, where.item(index)) for index, item in enumerate(items))
    if not networks:
        raise where.error("found an empty list, expected at least one network")
    names = [network.name for network in networks]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise where.item(index).key("network_name").error(f"found {name!r} a second time")
    return networks


def _network(item: JsonValue, place: Place) -> Network:
    if not isinstance(item, dict):
        raise place.unexpected(item, "an object")
    name = _text(item, "network_name", place)
    if not name:
        raise place.key("network_name").unexpected(name, "a name")
    subnet = _subnet(item, place)
    first = _address(item, "network_range_start", place, subnet)
    last = _address(item, "network_range_end", place, subnet)
    if int(first) > int(last):
        raise place.key("network_range_end").error(f"found {last}, expected nothing before {first}")
    gateway = _address(item, "network_gateway", place, subnet)
    return Network(name, subnet, gateway, first, last, _text(item, "comment", place))


def _subnet(item: JsonObject, place: Place) -> IpNetwork:
    text = _text(item, "network_subnet", place)
    try:
        return ip_network(text, strict=False)
    except ValueError:
        expected = "a network, such as 10.0.0.0/24"
        raise place.key("network_subnet").unexpected(text, expected) from None


def _address(item: JsonObject, key: str, place: Place, subnet: IpNetwork) -> IpAddress:
    text = _text(item, key, place)
    try:
        address = ip_address(text)
    except ValueError:
        raise place.key(key).unexpected(text, f"an address in {subnet}") from None
    if address not in subnet:
        raise place.key(key).unexpected(text, f"an address in {subnet}")
    return address


def _text(item: JsonObject, key: str, place: Place) -> str:
    value = item.get(key)
    if not isinstance(value, str | None):
        raise place.key(key).unexpected(value, "a text")
    return value or ""
