"""The batch of an optimizer step: samples per process x processes x accumulated batches."""
from dataclasses import dataclass

from mmcv import Config

from ..errors import InputError
from .config import loader_options


@dataclass(frozen=True)
class Batch:
    """Batch of an optimizer step.

    Attributes:
        samples: Number of images in a forward pass of one process.
        ranks: Number of processes.
        accumulation: Number of forward passes whose gradients a process accumulates.
    """
    samples: int
    ranks: int = 1
    accumulation: int = 1

    @property
    def images(self) -> int:
        """Number of images in an optimizer step, over all processes."""
        return self.samples * self.ranks * self.accumulation

    def __str__(self) -> str:
        return (f'batch: {self.images} images a step = {self.samples} a process x {self.ranks} '
                f'process(es) x {self.accumulation} accumulated; the learning rate is that of '
                'the config')


def split_batch(total: int, ranks: int, samples: int) -> Batch:
    """Splits a batch among processes.

    Args:
        total: Number of images in an optimizer step.
        ranks: Number of processes.
        samples: Largest number of images in a forward pass of one process. The result has the
            largest number up to this one that divides the share of a process.

    Raises:
        InputError: If the processes cannot have equal shares.
    """
    if total < 1 or total % ranks:
        near = sorted({max(total // ranks, 1) * ranks, (total // ranks + 1) * ranks})
        raise InputError(f'--total-batch {total}: expected a multiple of the {ranks} process(es), '
                         f'e.g. {" or ".join(map(str, near))}')
    part = total // ranks
    samples = max(n for n in range(1, min(samples, part) + 1) if part % n == 0)
    return Batch(samples, ranks, part // samples)


def resolve_batch(cfg: Config, ranks: int) -> Batch:
    """Reads the batch from a config: from ``total_batch``, or else ``accumulation``.

    The learning rate is not scaled.

    Raises:
        InputError: If the batch cannot be split, or the optimizer hook does not accumulate.
    """
    samples = loader_options(cfg, 'train')['samples_per_gpu']
    accumulation = cfg.get('accumulation', 1)
    if not isinstance(accumulation, int) or accumulation < 1:
        raise InputError(f'accumulation={accumulation!r}: expected 1 or more batches')
    batch = Batch(samples, ranks, accumulation)
    if cfg.get('total_batch') is not None:
        batch = split_batch(cfg.total_batch, ranks, samples)
    hook = (cfg.get('optimizer_config') or {}).get('type', 'OptimizerHook')
    if batch.accumulation > 1 and hook != 'OptimizerHook':
        raise InputError(f'optimizer_config.type={hook!r} does not accumulate '
                         f'{batch.accumulation} batches: leave the type out')
    return batch
