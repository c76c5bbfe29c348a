"""Memory of this host that processes can still take: what the system has, and what groups allow.

A container or a job of Slurm has less than the machine: the kernel ends what takes more than its
control group (cgroup) may have.
"""
from collections.abc import Iterator
from pathlib import Path

_MEMINFO, _OWN_GROUPS = Path('/proc/meminfo'), Path('/proc/self/cgroup')
_GROUPS = Path('/sys/fs/cgroup')
_CACHE = ('inactive_file', 'active_file')  # of memory.stat; the kernel drops it where memory ends


def free_host_memory() -> int:
    """Returns the bytes that can be taken without swapping, and without being ended.

    Raises:
        OSError: If the system does not say how many there are.
    """
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith('MemAvailable:'):
            available = int(line.split()[1]) * 1024  # from kilobytes
            return max(min([available, *_left_of_groups()]), 0)
    raise OSError(f'{_MEMINFO} has no MemAvailable')


def _left_of_groups() -> Iterator[int]:
    """Yields what is left of the limit of each group that this process is in."""
    lines = _OWN_GROUPS.read_text().splitlines() if _OWN_GROUPS.exists() else []
    for line in lines:
        _, controllers, own = line.split(':', 2)
        if not controllers:  # version 2
            root, limit, usage = _GROUPS, 'memory.max', 'memory.current'
        elif 'memory' in controllers.split(','):
            root, limit = _GROUPS / 'memory', 'memory.limit_in_bytes'
            usage = 'memory.usage_in_bytes'
        else:
            continue
        group = root / own.lstrip('/')  # a container may not see the path, but the root
        for folder in (group, *group.parents):
            if folder == root.parent:
                break
            largest = _read(folder / limit)
            if largest.isdigit():
                yield int(largest) - int(_read(folder / usage) or 0) + _cache_of(folder)


def _cache_of(group: Path) -> int:
    """Returns the bytes of files that count as used by a group."""
    found = dict(line.split()[:2] for line in _read(group / 'memory.stat').splitlines())
    return sum(int(found.get(name, 0)) for name in _CACHE)


def _read(path: Path) -> str:
    """Returns the content of a file; one that cannot be read has none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ''
