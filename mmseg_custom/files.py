"""Files that are there whole or not at all."""
import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Writes to a temporary name beside the file, flushes to the disk, and renames.

    Raises:
        OSError: If it failed; what was at the path is still there.
    """
    part = path.with_name(path.name + '.part')
    try:
        with open(part, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
