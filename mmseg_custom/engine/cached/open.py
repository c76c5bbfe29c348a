"""Config -> the cache of its run: found, checked, measured against the disk, filled."""
import logging
import os
import shutil
from collections.abc import Callable

import torch.distributed as dist
from mmcv import Config
from mmcv.runner import get_dist_info
from mmseg.utils import get_root_logger
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from ...checkpoint.provenance import drop_blocks, weights_source_of
from ...distributed.launch import broadcast_from_rank0
from ...distributed.parallelize import is_sharded, unwrap
from ...errors import InputError
from ...feature_cache import FeatureCache, RecordLayout
from ...feature_cache.manage import caches_in
from ...feature_cache.shards import CorruptShard
from ...units import format_bytes
from ..config import loader_options
from .fill import Filler
from .key import describe, differences
from .settings import Settings
from .views import AugmentedViews, CachedViews


def open_cache(cfg: Config, model: nn.Module, dataset: Dataset, device: str,
               asked_to_stop: Callable[[], bool] = bool) -> CachedViews:
    """The samples of ``feature_cache`` of a config; what is missing is computed first.

    Called on all ranks, which share the work.

    Args:
        cfg: The run's config.
        model: Its segmentor with its weights, in its dtypes, wrapped and on its device.
        dataset: What it trains on.
        device: 'cuda' or 'cpu', where it computes.
        asked_to_stop: Is asked between batches whether to end with code 75.

    Raises:
        InputError: For wrong settings, a backbone that is not frozen or is in shards, crops of
            different sizes, or a disk without room; nothing is written then.
        SaveError: If a file could not be written.
    """
    rank, world_size = get_dist_info()
    settings = Settings.of(cfg.feature_cache)
    if is_sharded(model):
        raise InputError("feature_cache with engine 'fsdp2': a frozen backbone that is read from a "
                         "cache needs no shards; use engine 'ddp' or 'auto'")
    model = unwrap(model)
    crops = AugmentedViews(dataset, settings.seed)
    of, layout = broadcast_from_rank0(
        _look(cfg, model, dataset, crops, settings) if rank == 0 else None)
    crops.crop = layout.crop
    cache = FeatureCache.of(settings.dir, of, layout)
    _check(cache, rank, world_size)
    if world_size > 1:
        dist.barrier()
    if rank == 0:
        _announce(cache, settings, of)
        about = weights_source_of(model.backbone)
        cache.begin(of, dict(weights=about and about.path))
    if world_size > 1:
        dist.barrier()
    if not os.path.isdir(cache.folder):
        raise InputError(f'feature_cache.dir={settings.dir}: rank {rank} does not see what rank 0 '
                         'made there: give a folder that all nodes share')
    cache.hold()
    if not cache.is_complete(settings.views):
        workers = loader_options(cfg, 'train')['workers_per_gpu']
        Filler(cache, settings.views, crops, model, device, workers, asked_to_stop).fill(
            rank, world_size)
    if rank == 0:
        cache.note_checked()
    return CachedViews(cache, settings.views, dataset)


def spare_backbone(cfg: Config, dataset: Dataset, model: nn.Module) -> None:
    """Lets the blocks of a backbone go that no step will need: all that it says is on the disk.

    For runs without validation, before the model moves to its device. Nothing happens where records
    are missing or unchecked, or where no file holds the blocks for checkpoints and tests.

    Args:
        cfg: The run's config.
        dataset: What it trains on.
        model: Its segmentor with its weights, unwrapped.
    """
    settings = Settings.of(cfg.feature_cache)
    rank, _ = get_dist_info()
    source = weights_source_of(model.backbone)
    enough = None
    if rank == 0 and source is not None:
        of, layout = _look(cfg, model, dataset, AugmentedViews(dataset, settings.seed), settings)
        cache = FeatureCache.of(settings.dir, of, layout)
        names = {f'blocks.{name}' for name in model.backbone.blocks.state_dict()}
        enough = (names <= set(source.names) and not cache.unchecked()
                  and cache.is_complete(settings.views))
    if broadcast_from_rank0(enough):
        drop_blocks(model.backbone)
        get_root_logger().info('feature cache: it is complete, and nothing is validated: the '
                               'blocks of the backbone are not kept in memory')


def _look(cfg: Config, model: nn.Module, dataset: Dataset, crops: AugmentedViews,
          settings: Settings) -> tuple[dict, RecordLayout]:
    """What the cache is of, and the sizes of its records; needs the first crop for them."""
    of = describe(cfg, model, dataset, settings.seed)
    image, _ = crops[0, 0]
    crop = (image.shape[1], image.shape[2])
    shapes = tuple(model.backbone.frozen_feature_shapes(*crop))
    return of, RecordLayout.of(len(crops), shapes, crop, settings.dtype)


def _check(cache: FeatureCache, rank: int, world_size: int) -> None:
    """Reads the shards that nobody has read since they were written, and removes corrupt ones."""
    shards = cache.unchecked()[rank::world_size]
    for shard in tqdm(shards, unit='file', desc='feature cache: checking', mininterval=1,
                      disable=rank > 0 or not shards):
        try:
            cache.check(shard)
        except CorruptShard as error:
            cache.remove(shard)
            # On any rank: mmseg's logger is quiet on all but the first.
            get_root_logger().log(logging.WARNING if rank == 0 else logging.ERROR,
                                  'feature cache: %s is corrupt (%s): it is computed anew',
                                  cache.path_of(shard), error)


def _announce(cache: FeatureCache, settings: Settings, of: dict) -> None:
    """Says what there is and what is to come.

    Raises:
        InputError: If the disk has no room for it.
    """
    layout, views = cache.layout, settings.views
    total = views * layout.images * layout.record_bytes
    needed = total - sum(cache.bytes_of(shard) for shard in cache.present() if shard.view < views)
    free = shutil.disk_usage(_existing(settings.dir)).free
    of_record, of_cache, to_write, left = (
        format_bytes(count, decimal=True) for count in (layout.record_bytes, total, needed, free))
    text = (f'{layout.images} images x {views} views x {of_record} = {of_cache}, of which '
            f'{to_write} are still to be written; {left} are free on the disk of {settings.dir}')
    if needed > free:
        fit = (free + total - needed) // (layout.images * layout.record_bytes)
        way_out = f'feature_cache.views={fit}, which fits' if fit else 'fewer images'
        raise InputError(f'feature cache: {text}: give feature_cache.dir a disk with more room, '
                         f'or {way_out}')
    get_root_logger().info('feature cache %s: %s', cache.folder, text)
    others = [differences(of, key['of']) for name, key in caches_in(settings.dir)
              if name != os.path.basename(cache.folder) and 'of' in key]
    if not os.path.exists(cache.folder) and others:
        get_root_logger().info(
            'feature cache: it is new; of %d other(s) there, the nearest differs in %s',
            len(others), ', '.join(min(others, key=len)) or 'the layout of its records')


def _existing(path: str) -> str:
    """The folder itself, or the first one above it that is there."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
