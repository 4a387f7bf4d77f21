"""Which addresses of a network a VM could have."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from hoster.model.networks import Network

INTERNAL = Network(
    "internal",
    ip_network("10.0.101.0/24"),
    ip_address("10.0.101.254"),
    ip_address("10.0.101.10"),
    ip_address("10.0.101.200"),
)


@pytest.mark.parametrize("address", ["10.0.101.1", "10.0.101.10", "10.0.101.253"])
def test_a_vm_could_have_any_address_of_the_subnet_in_its_range_or_not(address: str) -> None:
    assert INTERNAL.has_room_for(ip_address(address))


@pytest.mark.parametrize("address", ["10.0.101.0", "10.0.101.255", "10.0.101.254", "10.0.102.10", "fe80::1"])
def test_it_could_not_have_one_that_means_something_else_or_lies_elsewhere(address: str) -> None:
    assert not INTERNAL.has_room_for(ip_address(address))
