"""Which processes share a host, and through which network interface hosts reach each other."""
import ipaddress
import json
import os
import socket
import struct
from collections.abc import Sequence

from torch.distributed import Store

BOOT_ID = '/proc/sys/kernel/random/boot_id'
GLOO_VARIABLE = 'GLOO_SOCKET_IFNAME'
_SIOCGIFADDR = 0x8915  # Linux: asks for the IPv4 address of an interface


def host_id() -> str:
    """Returns what tells this host from all others, in the way that nccl does it.

    The host name alone would not do where machines were cloned, nor the boot id of the kernel
    alone: containers on one machine share it, while each may have its own files and shared memory.
    nccl takes both, and NCCL_HOSTID in their place, for containers that are to count as one host.
    """
    if os.environ.get('NCCL_HOSTID'):
        return os.environ['NCCL_HOSTID']
    try:
        with open(BOOT_ID) as file:
            return f'{socket.gethostname()} {file.read().strip()}'
    except OSError:
        return socket.gethostname()


def by_host(hosts: Sequence[str]) -> list[list[int]]:
    """Groups ranks by host.

    Args:
        hosts: Host of each rank. Ranks of a host need not follow each other.

    Returns:
        Ranks of each host, in ascending order; the host of rank 0 comes first.
    """
    groups: dict[str, list[int]] = {}
    for rank, host in enumerate(hosts):
        groups.setdefault(host, []).append(rank)
    return list(groups.values())


def exchange(store: Store, rank: int, ranks: int, value: object) -> list:
    """Exchanges a value between all processes before there is a process group.

    Args:
        store: Store of the rendezvous.
        rank: Rank of this process.
        ranks: Number of processes.
        value: Value of this process, as JSON takes it.

    Returns:
        Values of all ranks, in their order.
    """
    store.set(f'value/{rank}', json.dumps(value))
    if rank == 0:  # so that each process makes one request instead of one for every rank
        store.set('values', json.dumps([json.loads(store.get(f'value/{i}')) for i in range(ranks)]))
    return json.loads(store.get('values'))


def gloo_uses_loopback(name: str | None = None) -> bool:
    """Returns whether gloo would listen where no other host reaches it.

    gloo takes the first address of the host name that belongs to this host. Debian's /etc/hosts
    says 127.0.1.1 there.

    Args:
        name: Host name; default: that of this host.
    """
    if GLOO_VARIABLE in os.environ:
        return False
    try:
        found = socket.getaddrinfo(name or socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return True
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
        except OSError:
            continue
        return is_loopback(str(address[0]))
    return True


def is_loopback(address: str) -> bool:
    """Returns whether an address is of this host alone."""
    return ipaddress.ip_address(address.partition('%')[0]).is_loopback


def address_towards(host: str) -> str | None:
    """Returns the IPv4 address by which this host sends to another; None if it is loopback."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing; the kernel looks up the route
            address = str(probe.getsockname()[0])
    except OSError:
        return None
    return None if is_loopback(address) else address


def interface_of(address: str) -> str | None:
    """Returns the network interface of this host with an IPv4 address."""
    import fcntl
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack('256s', name.encode()))
            except OSError:
                continue  # It has no address.
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def peer_address(rank: int, hosts: Sequence[str], addresses: Sequence[str | None]) -> str | None:
    """Returns an address of another host, to which the host of a rank looks up its route.

    Args:
        rank: Rank of this process.
        hosts: Host of each rank.
        addresses: Address by which each rank sends to MASTER_ADDR; None where that is loopback, as
            on the host of rank 0, and on all others if they share its network.

    Returns:
        Address; None if no host has reached rank 0 over a network.
    """
    return next((address for host, address in zip(hosts, addresses)
                 if host != hosts[rank] and address is not None), None)
