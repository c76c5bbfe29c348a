"""Builds the data loaders of training and testing."""
from collections.abc import Sequence
from functools import partial
from typing import Any

from mmcv.parallel import collate
from mmcv.runner import get_dist_info
from mmseg.utils import get_root_logger
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ..datasets.nesting import sample_names
from .config import loader_options
from .run import Run
from .sampler import InfiniteSampler
from .samples import SkippingDataset, collate_views
from .watched_loader import WatchedLoader

OF_WORKERS = ('prefetch_factor', 'timeout', 'multiprocessing_context')  # torch's own options


def build_train_loader(run: Run, samples: Dataset, done: int = 0) -> DataLoader:
    """Builds the endless loader of a training run.

    Args:
        run: The run.
        samples: Data set that is indexed by (position in the stream, index of the image).
        done: Number of iterations done already.
    """
    return build_endless_loader(run, samples, done * run.batch.accumulation)


def build_endless_loader(run: Run, samples: Dataset, done: int) -> DataLoader:
    """Builds a loader of shuffled batches, of the size and with the workers of ``data.train``.

    Args:
        run: The run.
        samples: Data set that is indexed by (position in the stream, index of the image).
        done: Number of batches done already.
    """
    rank, world_size = get_dist_info()
    options = loader_options(run.cfg, 'train')
    batch, workers = run.batch.samples, options['workers_per_gpu']
    others = {name: options[name] for name in OF_WORKERS if name in options and workers > 0}
    if len(samples) < batch * world_size:
        get_root_logger().warning('%d images are fewer than the %d of one step: images repeat '
                                  'within a step', len(samples), batch * world_size)
    return WatchedLoader(
        samples, batch_size=batch, num_workers=workers,
        sampler=InfiniteSampler(len(samples), run.seed, rank, world_size, done * batch),
        collate_fn=partial(collate, samples_per_gpu=batch), drop_last=True,
        pin_memory=run.device == 'cuda' and bool(options.get('pin_memory', True)),
        persistent_workers=workers > 0, names=partial(_names, samples), **others)


def build_test_loader(run: Run, split: str, skip_unread: bool = False) -> DataLoader:
    """Builds the loader of 'val' or 'test', with the images in order, split among the ranks.

    Args:
        run: The run. With ``data.test_dataloader=dict(samples_per_gpu=4)`` in its config, windows
            of several images, of any sizes, share a batch.
        split: 'val' or 'test'.
        skip_unread: Whether to mark samples that cannot be read instead of raising an error.
    """
    rank, world_size = get_dist_info()
    dataset = run.data[split]
    options = {'persistent_workers': False, 'pin_memory': run.device == 'cuda',
               **loader_options(run.cfg, split)}
    workers = options['workers_per_gpu']
    # Of mmseg's builder, without effect here; every image is tested, also in a short last batch.
    for name in ('dist', 'num_gpus', 'seed', 'shuffle', 'drop_last',
                 *(('persistent_workers', *OF_WORKERS) if workers == 0 else ())):
        options.pop(name, None)
    sampler: DistributedSampler = DistributedSampler(dataset, world_size, rank, shuffle=False)
    return WatchedLoader(
        SkippingDataset(dataset) if skip_unread else dataset, sampler=sampler,
        batch_size=options.pop('samples_per_gpu'), num_workers=options.pop('workers_per_gpu'),
        collate_fn=collate_views, names=partial(_names, dataset), **options)


def _names(dataset: Dataset, keys: Sequence[Any]) -> str:
    """Names the images of a batch, by their indices or by (position, index)."""
    names = sample_names(getattr(dataset, 'samples', dataset))
    return ', '.join(names[key[1] if isinstance(key, tuple) else key] for key in keys)
