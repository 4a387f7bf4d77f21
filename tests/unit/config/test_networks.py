"""network_config.json: found, read, and refused with the place where it is wrong."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from hoster.config.files import FileMissing
from hoster.config.networks import NETWORKS_NAME, find_networks_file, read_networks
from hoster.errors import ConfigurationError
from hoster.model.networks import Network

INTERNAL = {
    "network_name": "internal",
    "network_gateway": "10.0.101.254",
    "network_subnet": "10.0.101.0/24",
    "network_range_start": "10.0.101.10",
    "network_range_end": "10.0.101.200",
    "bridge_interface": "None",
    "apply_bridge_address": True,
    "comment": "Internal Network",
}


def written(folder: Path, document: Any) -> Path:
    path = folder / NETWORKS_NAME
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_the_originals_file_is_understood_and_its_order_kept(tmp_path: Path) -> None:
    six = {
        "network_name": "six",
        "network_gateway": "fd00::1",
        "network_subnet": "fd00::/64",
        "network_range_start": "fd00::10",
        "network_range_end": "fd00::ffff",
        "comment": None,
    }

    found = read_networks(written(tmp_path, [INTERNAL, six]))

    assert found[0] == Network(
        "internal",
        ip_network("10.0.101.0/24"),
        ip_address("10.0.101.254"),
        ip_address("10.0.101.10"),
        ip_address("10.0.101.200"),
        "Internal Network",
    )
    assert (found[1].name, found[1].comment) == ("six", "")


def test_a_subnet_may_be_written_with_the_address_of_the_gateway(tmp_path: Path) -> None:
    (found,) = read_networks(written(tmp_path, [INTERNAL | {"network_subnet": "10.0.101.254/24"}]))
    assert found.subnet == ip_network("10.0.101.0/24")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network_name": ""}, r"\[0\]\.network_name: found an empty text, expected a name"),
        ({"network_name": 3}, r"\[0\]\.network_name: found the number 3, expected a text"),
        ({"network_subnet": "10.0.101.0/33"}, r"\[0\]\.network_subnet: .*expected a network"),
        ({"network_gateway": ""}, r"\[0\]\.network_gateway: found an empty text, expected an address in"),
        (
            {"network_gateway": "10.9.9.9"},
            r"\[0\]\.network_gateway: .*expected an address in 10\.0\.101\.0/24",
        ),
        ({"network_range_start": "fd00::1"}, r"\[0\]\.network_range_start: .*expected an address in"),
        ({"network_range_end": "10.0.101.9"}, r"\[0\]\.network_range_end: .*nothing before 10\.0\.101\.10"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_networks(written(tmp_path, [INTERNAL | changes]))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("", "found an empty file, expected a JSON list"),
        ({}, "found an object, expected a list"),
        ([], "expected at least one network"),
        (["internal"], r"\[0\]: found the text .*expected an object"),
        ([INTERNAL, INTERNAL], r"\[1\]\.network_name: found 'internal' a second time"),
        ('[{"network_name": "a", "network_name": "b"}]', "more than once"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, document: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_networks(written(tmp_path, document))


def test_it_is_looked_for_beside_the_settings_first_and_then_where_the_original_looks(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    settings = ours / "hoster.toml"
    with pytest.raises(FileMissing, match=f"{ours}.*{theirs}"):
        find_networks_file(settings, [theirs])
    second = written(theirs, [INTERNAL])
    assert find_networks_file(settings, [theirs]) == second
    first = written(ours, [INTERNAL])
    assert find_networks_file(settings, [theirs]) == first
