"""Free memory of the host, in control groups of both versions."""
import pytest

from mmseg_custom import host_memory

MIB = 2**20


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host with 100 MiB free, and groups that tests write."""
    (tmp_path / 'meminfo').write_text(f'MemTotal: 999999 kB\nMemAvailable: {100 * 1024} kB\n')
    monkeypatch.setattr(host_memory, '_MEMINFO', tmp_path / 'meminfo')
    monkeypatch.setattr(host_memory, '_OWN_GROUPS', tmp_path / 'cgroup')
    monkeypatch.setattr(host_memory, '_GROUPS', tmp_path / 'groups')

    def write(own: str, path: str = '', **files: object) -> None:
        (tmp_path / 'cgroup').write_text(own)
        folder = tmp_path / 'groups' / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / f'memory.{name}').write_text(f'{content}\n')
    return write


def test_without_a_limit(host):
    assert host_memory.free_host_memory() == 100 * MIB
    host('0::/job\n', 'job', max='max', current=5 * MIB)
    assert host_memory.free_host_memory() == 100 * MIB


def test_version_2_and_the_groups_above(host):
    host('0::/job/step\n', 'job/step', max='max', current=5 * MIB)
    host('0::/job/step\n', 'job', max=60 * MIB, current=50 * MIB,
         stat=f'anon 1\ninactive_file {20 * MIB}\nactive_file {2 * MIB}')
    assert host_memory.free_host_memory() == 32 * MIB  # files in the cache are dropped for others


def test_version_1_where_a_container_sees_the_root_alone(host):
    host('5:devices:/x\n4:cpu,memory:/docker/x\n0::/\n', 'memory', limit_in_bytes=40 * MIB,
         usage_in_bytes=50 * MIB)
    assert host_memory.free_host_memory() == 0
