"""The networks that a node has for its VMs. Pure values."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

from msgspec import Struct

IpAddress: TypeAlias = IPv4Address | IPv6Address
IpNetwork: TypeAlias = IPv4Network | IPv6Network


class Network(Struct, frozen=True):
    """One network: VMs in it get addresses from ``first`` to ``last``, both included.

    ``name`` is what a VM's card has as its bridge. Gateway and range lie in the subnet.
    """

    name: str
    subnet: IpNetwork
    gateway: IpAddress
    first: IpAddress
    last: IpAddress
    comment: str = ""

    def has_room_for(self, address: IpAddress) -> bool:
        """Whether a VM could have this address here: in the subnet, and none that has another meaning."""
        reserved = {self.gateway, self.subnet.network_address, self.subnet.broadcast_address}
        return address in self.subnet and address not in reserved
