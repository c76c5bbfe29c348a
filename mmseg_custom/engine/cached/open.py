"""Opens the feature cache of a run: checks it, compares it with the free disk, and fills it."""
import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from mmcv.runner import get_dist_info
from mmseg.utils import get_root_logger
from torch import nn

from ...checkpoint.provenance import drop_blocks, droppable_blocks, weights_source_of
from ...distributed.collectives import broadcast_from_rank0
from ...distributed.parallelize import is_sharded, unwrap
from ...errors import InputError
from ...feature_cache import FeatureCache, RecordLayout
from ...feature_cache.manage import caches_in, content_of
from ...feature_cache.shards import CorruptShard
from ...layers.quantized_linear import weight_of
from ...logs import saying
from ...models.tuning import FROZEN
from ...progress import progress_bar
from ...units import format_bytes
from ..blame import reading
from ..config import loader_options
from ..run import Run
from ..watched_loader import LIMIT
from .fill import Filler
from .key import describe, differences
from .settings import CacheSettings
from .views import AugmentedViews, CachedViews


def open_cache(run: Run, model: nn.Module,
               asked_to_stop: Callable[[], bool] = lambda: False) -> CachedViews:
    """Opens the cache of a run, after computing what is missing.

    Called on all ranks, which share the work.

    Args:
        run: The run.
        model: Segmentor with its weights, in its dtypes, wrapped and on its device.
        asked_to_stop: Function that is called between batches and returns whether to exit with
            code 75.

    Raises:
        InputError: If the settings are wrong, the backbone is trained or sharded, crops differ in
            size, or the disk has no room; nothing is written then.
        SaveError: If a file could not be written.
    """
    rank, world_size = get_dist_info()
    settings = CacheSettings.of(run.cfg.feature_cache)
    if is_sharded(model):
        raise InputError("feature_cache with engine 'fsdp2': the frozen part of the backbone is "
                         "read from the cache, and needs no sharding; use engine 'ddp'")
    model = unwrap(model)
    crops = AugmentedViews(run.data['train'], settings.seed)
    with saying('reading the weights, which a feature cache is named by'):
        described: Any = _describe(run, model, crops, settings) if rank == 0 else None
    key, layout = broadcast_from_rank0(described)
    crops.crop = layout.crop
    cache = FeatureCache.of(settings.dir, key, layout)
    _check(cache, rank, world_size)
    if world_size > 1:
        dist.barrier()
    if rank == 0:
        _announce(cache, settings, key)
        source = weights_source_of(model.backbone)
        cache.begin(key, dict(weights=source and source.path))
    if world_size > 1:
        dist.barrier()
    if not os.path.isdir(cache.folder):
        raise InputError(f'feature_cache.dir={settings.dir}: rank {rank} does not see what rank 0 '
                         'made there: give a folder that all nodes share')
    cache.hold()
    if not cache.is_complete(settings.views):
        options = loader_options(run.cfg, 'train')
        filler = Filler(cache, settings.views, crops, model, run.device,
                        options['workers_per_gpu'], options.get('timeout', LIMIT), asked_to_stop)
        with reading('model or data.train', 'fails while the feature cache is filled'):
            filler.fill(rank, world_size)
    if rank == 0:
        cache.note_checked()
    return CachedViews(cache, settings.views, run.data['train'])


def drop_unneeded_blocks(run: Run, model: nn.Module) -> None:
    """Frees the frozen blocks of a backbone if the cache holds all that they compute.

    Called in runs without validation, before the model moves to its device. The blocks are kept if
    records are missing or unchecked, or if no file holds the blocks for checkpoints and tests.

    Args:
        run: The run.
        model: Segmentor with its weights, unwrapped.
    """
    if not droppable_blocks(model.backbone):
        return
    settings = CacheSettings.of(run.cfg.feature_cache)
    rank, _ = get_dist_info()
    source = weights_source_of(model.backbone)
    enough = None
    if rank == 0 and source is not None:
        key, layout = _describe(run, model, AugmentedViews(run.data['train'], settings.seed),
                                settings)
        cache = FeatureCache.of(settings.dir, key, layout)
        prefixes = tuple(f'{i}.' for i in droppable_blocks(model.backbone))
        names = {f'blocks.{weight_of(name)}' for name in model.backbone.blocks.state_dict()
                 if name.startswith(prefixes)}
        enough = (names <= set(source.names) and not cache.unchecked()
                  and cache.is_complete(settings.views))
    if broadcast_from_rank0(enough):
        drop_blocks(model.backbone)
        trained = 'all of them' if model.backbone.tuning.kind == FROZEN else 'trained ones stay'
        get_root_logger().info('feature cache: it is complete, and the run has no validation: the '
                               'frozen blocks of the backbone are freed (%s)', trained)


def _describe(run: Run, model: nn.Module, crops: AugmentedViews,
              settings: CacheSettings) -> tuple[dict, RecordLayout]:
    """Returns the key of the cache, and the layout of its records, which the first crop gives."""
    key = describe(run, model, settings.seed)
    image, _ = crops[0, 0]
    crop = (image.shape[1], image.shape[2])
    shapes = tuple(model.backbone.frozen_feature_shapes(*crop))
    return key, RecordLayout.of(len(crops), shapes, crop, settings.dtype)


def _check(cache: FeatureCache, rank: int, world_size: int) -> None:
    """Checks the shards that have not been read since they were written; removes corrupt ones."""
    shards = cache.unchecked()[rank::world_size]
    with progress_bar(len(shards), 'file', 'feature cache: checking') as bar:
        for shard in shards:
            try:
                cache.check(shard)
            except CorruptShard as error:
                cache.remove(shard)
                # mmseg's logger shows only errors on ranks other than 0.
                get_root_logger().log(logging.WARNING if rank == 0 else logging.ERROR,
                                      'feature cache: %s is corrupt (%s): it is computed again',
                                      cache.path_of(shard), error)
            bar.update()


def _announce(cache: FeatureCache, settings: CacheSettings, key: dict) -> None:
    """Logs what the cache holds and what is to be written.

    Raises:
        InputError: If the disk has no room for it.
    """
    layout, views = cache.layout, settings.views
    total = views * layout.images * layout.record_bytes
    needed = total - sum(cache.bytes_of(shard) for shard in cache.present() if shard.view < views)
    free = shutil.disk_usage(_existing(settings.dir)).free
    each, every, new, room = (format_bytes(count, decimal=True) for count in
                              (layout.record_bytes, total, needed, free))
    held = f'{content_of(key["backbone"])}: ' if 'tokens_before' in key['backbone'] else ''
    text = (f'{held}{layout.images} images x {views} views x {each} = {every}, of which {new} are '
            f'still to be written; {room} are free on the disk of {settings.dir}')
    if needed > free:
        fit = (free + total - needed) // (layout.images * layout.record_bytes)
        way_out = f'feature_cache.views={fit}, which fits' if fit else 'fewer images'
        raise InputError(f'feature cache: {text}: give feature_cache.dir a disk with more room, '
                         f'or {way_out}')
    get_root_logger().info('feature cache %s: %s', cache.folder, text)
    others = [differences(key, other['of']) for name, other in caches_in(settings.dir)
              if name != os.path.basename(cache.folder) and 'of' in other]
    if not os.path.exists(cache.folder) and others:
        nearest = sorted(others, key=lambda names: len(names))[0]
        get_root_logger().info(
            'feature cache: a new one; of %d other(s) there, the nearest differs in %s',
            len(others), ', '.join(nearest) or 'the layout of its records')


def _existing(path: str) -> str:
    """Returns the folder itself, or the nearest existing folder above it."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
