"""Numbers of bytes, and how people read them."""
MIB, GIB = 2**20, 2**30


def format_bytes(count: float, decimal: bool = False) -> str:
    """Formats a number of bytes with three significant digits.

    Args:
        count: Number of bytes.
        decimal: Whether the units are powers of 1000, as disks are sold ('8.55 MB'), instead of
            powers of 1024, as memory is ('8.15 MiB').
    """
    base, units = (1000, ('B', 'kB', 'MB', 'GB', 'TB')) if decimal else (
        1024, ('B', 'KiB', 'MiB', 'GiB', 'TiB'))
    for unit in units:
        if abs(count) < 999.5 or unit == units[-1]:
            break
        count /= base
    return f'{count:.3g} {unit}'
