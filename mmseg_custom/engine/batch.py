"""The batch of an optimizer step: samples of a process x processes x batches that are added up."""
from mmcv import Config
from mmseg.utils import get_root_logger

from ..errors import InputError
from .config import loader_options


def split_batch(total: int, ranks: int, samples: int) -> tuple[int, int]:
    """Divides a batch.

    Args:
        total: Images of an optimizer step.
        ranks: Processes.
        samples: Images that a process takes at once, if that divides its share; else the largest
            number below that does.

    Returns:
        (samples, batches that a process adds up).

    Raises:
        InputError: If the processes cannot have equal shares.
    """
    if total < 1 or total % ranks:
        near = sorted({max(total // ranks, 1) * ranks, (total // ranks + 1) * ranks})
        raise InputError(f'--total-batch {total}: expected a multiple of the {ranks} process(es), '
                         f'e.g. {" or ".join(map(str, near))}')
    share = total // ranks
    samples = max(n for n in range(1, min(samples, share) + 1) if share % n == 0)
    return samples, share // samples


def resolve_batch(cfg: Config, ranks: int) -> int:
    """Sets ``samples_per_gpu`` as ``cfg.total_batch`` asks, and logs the batch.

    Without ``total_batch``, ``accumulation=k`` of the config holds. The learning rate stays what
    the config says.

    Returns:
        The batches that a process adds up to an optimizer step.

    Raises:
        InputError: If the batch cannot be divided, or the optimizer's hook is one that does not
            add up.
    """
    samples = loader_options(cfg, 'train')['samples_per_gpu']
    accumulation = cfg.get('accumulation', 1)
    if not isinstance(accumulation, int) or accumulation < 1:
        raise InputError(f'accumulation={accumulation!r}: expected 1 or more batches')
    if cfg.get('total_batch'):
        samples, accumulation = split_batch(cfg.total_batch, ranks, samples)
        cfg.data.train_dataloader = {**cfg.data.get('train_dataloader', {}),
                                     'samples_per_gpu': samples}
    hook = (cfg.get('optimizer_config') or {}).get('type', 'OptimizerHook')
    if accumulation > 1 and hook != 'OptimizerHook':
        raise InputError(f'optimizer_config.type={hook!r} does not add up {accumulation} batches: '
                         'leave the type out')
    get_root_logger().info(
        'batch: %d images a step = %d a process x %d process(es) x %d added up; the learning rate '
        'is the one of the config', samples * ranks * accumulation, samples, ranks, accumulation)
    return accumulation
