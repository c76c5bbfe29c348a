"""The part of a sharded tensor (DTensor) that a process holds."""
from typing import Any

from torch.distributed.tensor import DTensor


def own_shard(value: Any) -> Any:
    """Returns this process's shard of a tensor, in the same memory; other values as they are."""
    return value.to_local() if isinstance(value, DTensor) else value
