"""Whatever a VM's configuration holds, a new cloud-init set changes what it is for and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operations.resetting import CD, KEYS, Node, config_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
IMAGE = TEXT.map(lambda text: text.replace("\0", "") + ".img")
UNKNOWN = st.dictionaries(st.text(max_size=5).map(lambda text: f"x_{text}"), JSON, max_size=3)


def entries(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    both = st.tuples(st.fixed_dictionaries(keys), UNKNOWN).map(lambda pair: pair[1] | pair[0])
    return st.lists(both, max_size=3)


CONFIGS = st.tuples(
    st.fixed_dictionaries(
        {
            "production": st.booleans(),
            "cpu_cores": st.integers(0, 64),
            "memory": TEXT,
            "os_type": st.sampled_from(["debian12", "freebsd13zfs", ""]),
            "uuid": TEXT.filter(bool),
            "description": TEXT,
            "dns_search_domain": st.sampled_from(["", "example.lan"]),
            "tags": st.lists(TEXT, max_size=3),
            "networks": entries(ip_address=TEXT, network_mac=TEXT, network_bridge=TEXT, comment=TEXT),
            "disks": st.just([CD]) | entries(disk_type=TEXT, disk_image=IMAGE),
            "vm_ssh_keys": entries(key_owner=TEXT, key_value=TEXT, comment=TEXT),
        }
    ),
    UNKNOWN,
).map(lambda pair: pair[1] | pair[0])

RESET = {"parent_host", "vnc_port", "vnc_password", "networks", "vm_ssh_keys"}
RESET_OF_A_CARD = {"network_bridge", "network_mac", "ip_address", "comment"}


@settings(max_examples=60, deadline=None)
@given(CONFIGS)
def test_whatever_the_configuration_is_all_else_is_kept(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]
) -> None:
    node = Node(tmp_path_factory.mktemp("node"))
    place = node.has("web", config)

    report = node.reset()

    after = config_of(place)
    absent_before = {key for key in after if key not in config}
    assert {key for key in config if key not in after} <= {"dns_search_domain"}  # left out where it is empty
    assert {k: v for k, v in after.items() if k not in RESET | absent_before} == {
        k: v for k, v in config.items() if k in after and k not in RESET and k != "disks"
    } | {"disks": after["disks"]}
    assert_kept(config["disks"], after["disks"], set())
    assert_kept(config["networks"][:1], after["networks"][:1], RESET_OF_A_CARD)
    assert_kept(config["networks"][1:], after["networks"][1:], set())
    assert [key["key_value"] for key in after["vm_ssh_keys"]] == list(KEYS)
    assert (report.ip_address is None) == (config["networks"] == [])


def assert_kept(before: list[Any], after: list[Any], reset_keys: set[str]) -> None:
    """Each entry still has what it had, in the same order; known keys it lacked may be there, empty."""
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert {k: v for k, v in new.items() if k in old and k not in reset_keys} == {
            k: v for k, v in old.items() if k not in reset_keys
        }
