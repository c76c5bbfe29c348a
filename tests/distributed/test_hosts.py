import socket

import pytest

from mmseg_custom.distributed import hosts


def test_ranks_of_each_host():
    assert hosts.by_host('aabb') == [[0, 1], [2, 3]]
    assert hosts.by_host('abab') == [[0, 2], [1, 3]]


def test_identity_of_a_host(monkeypatch, tmp_path):
    monkeypatch.delenv('NCCL_HOSTID', raising=False)
    (tmp_path / 'boot_id').write_text('1234\n')
    monkeypatch.setattr(hosts, 'BOOT_ID', str(tmp_path / 'boot_id'))
    monkeypatch.setattr(socket, 'gethostname', lambda: 'node7')
    assert hosts.host_id() == 'node7 1234'
    monkeypatch.setattr(hosts, 'BOOT_ID', str(tmp_path / 'none'))
    assert hosts.host_id() == 'node7'
    monkeypatch.setenv('NCCL_HOSTID', 'both containers')
    assert hosts.host_id() == 'both containers'


@pytest.mark.parametrize('found, loopback', [
    (['127.0.1.1'], True), (['127.0.1.1', '10.1.2.3'], True), ([], True),
    (['203.0.113.1', '127.0.0.1'], True)])  # the first is no address of this host
def test_where_gloo_would_listen(monkeypatch, found, loopback):
    monkeypatch.delenv('GLOO_SOCKET_IFNAME', raising=False)
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *_, **__: [
        (socket.AF_INET, socket.SOCK_STREAM, 6, '', (address, 0)) for address in found])
    assert hosts.gloo_uses_loopback('node7') == loopback
    monkeypatch.setenv('GLOO_SOCKET_IFNAME', 'eth0')
    assert not hosts.gloo_uses_loopback('node7')


@pytest.mark.parametrize('address, loopback', [
    ('127.0.1.1', True), ('::1', True), ('10.1.2.3', False), ('fe80::1%eth0', False)])
def test_loopback_addresses(address, loopback):
    assert hosts.is_loopback(address) == loopback


def test_interface_of_an_address():
    assert hosts.interface_of('127.0.0.1') == 'lo'
    assert hosts.interface_of('203.0.113.1') is None
    assert hosts.address_towards('127.0.0.1') is None


def test_the_host_of_rank_0_looks_up_the_way_to_another():
    names, addresses = ('a', 'a', 'b', 'b'), (None, None, '10.0.0.2', '10.0.0.2')
    assert hosts.peer_address(1, names, addresses) == '10.0.0.2'
    assert hosts.peer_address(2, names, addresses) is None
    assert hosts.peer_address(0, names, (None,) * 4) is None
