"""Computes and writes the missing shards of a cache; several processes share the work.

The feature maps of a batch are copied to the host, and complete shards are written, while the next
batch is computed.

B crops, C channels, h w patch grid, H W pixels.
"""
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from types import TracebackType

from mmseg.utils import get_root_logger
from torch import Tensor, nn
from tqdm import tqdm

from ...errors import InputError
from ...feature_cache import FeatureCache, Shard
from ...feature_cache.shards import ShardData
from ...models.frozen_features import frozen_features
from ...processes import PREEMPTED
from ...progress import progress_bar
from ..background import Background
from ..copies import DeviceCopy, HostCopy, copy_stream
from ..watched_loader import LIMIT, WatchedLoader
from .views import AugmentedViews

# Crops in a forward pass. It is fixed, because sums in another order differ in their last bits.
BATCH = 4
POLL_SECONDS = 0.5
OTHERS_SECONDS = 3600  # that other processes may take for a shard


class Filler:
    """Fills a cache.

    Args:
        cache: Cache whose folder exists.
        views: Number of views of each image.
        crops: Crops to cache.
        model: Segmentor whose backbone is on the device.
        device: 'cuda' or 'cpu'.
        workers: Number of processes that load crops.
        timeout: Seconds that they may take for a batch: see :class:`..watched_loader`.
        asked_to_stop: Function that is called between batches and returns whether to stop.
    """

    def __init__(self, cache: FeatureCache, views: int, crops: AugmentedViews, model: nn.Module,
                 device: str, workers: int = 0, timeout: float = LIMIT,
                 asked_to_stop: Callable[[], bool] = bool):
        self.cache, self.views, self.crops, self.model = cache, views, crops, model
        self.device, self.workers, self.timeout = device, workers, timeout
        self.asked_to_stop = asked_to_stop
        self._coming, self._leaving = copy_stream(device), copy_stream(device)

    def fill(self, rank: int = 0, world_size: int = 1) -> None:
        """Writes the missing shards, and waits for those that other processes write.

        Args:
            rank: Rank of this process. Ranks start at different shards, so that they do not try to
                claim the same ones.
            world_size: Number of ranks.

        Raises:
            SystemExit: With code 75 if the process is asked to stop; written shards are kept.
            InputError: If another process holds shards, and writes none for an hour.
            SaveError: If a shard could not be written.
        """
        missing = self.cache.missing(self.views)
        total = sum(map(self._records, missing))
        with progress_bar(total, 'crop', 'feature cache') as bar:
            waited = 0.
            while missing:
                before = len(missing)
                start = rank * len(missing) // world_size
                self._write(missing[start:] + missing[:start], bar, total)
                missing = self.cache.missing(self.views)
                bar.update(total - sum(map(self._records, missing)) - bar.n)
                if missing:  # Other processes are writing them, or claimed them and died.
                    self._stop_if_asked()
                    time.sleep(POLL_SECONDS)
                    waited = waited + POLL_SECONDS if len(missing) == before else 0.
                if waited > OTHERS_SECONDS:
                    raise InputError(
                        f'feature cache {self.cache.folder}: another process has {len(missing)} '
                        f'files in work, and has written none for {OTHERS_SECONDS // 60} minutes: '
                        'end it if it is stuck, and start this run again')

    def _write(self, shards: list[Shard], bar: tqdm, total: int) -> None:
        """Writes the shards that no other process has claimed."""
        claimed = self._claimed(shards)
        first = next(claimed, None)
        if first is None:
            return
        sampler = _ShardSampler(self.cache, chain([first], claimed))
        loader = WatchedLoader(
            self.crops, batch_sampler=sampler, num_workers=self.workers, timeout=self.timeout,
            pin_memory=self.device == 'cuda')
        with _Writer(self.cache) as writer, Background(self.device) as background:
            for images, labels in loader:
                shard, rows = sampler.batches.popleft()
                if rows.start == 0:
                    data = ShardData.empty(self.cache.layout, self._records(shard))
                features = self.compute(images)
                background.put(partial(store, data, rows, features, labels))
                if rows.stop == len(data.labels):
                    background.put(partial(writer.write, shard, data))
                bar.update(len(images))
                self._stop_if_asked()

    def _claimed(self, shards: list[Shard]) -> Iterator[Shard]:
        """Yields the missing shards one by one, each claimed for this process."""
        present = set(self.cache.present())
        for shard in shards:
            if shard in present or not self.cache.claim(shard):
                continue
            present = set(self.cache.present())
            if shard in present:  # Another process has written it since.
                self.cache.release(shard)
            else:
                yield shard

    def compute(self, images: Tensor) -> list[HostCopy]:
        """Computes the feature maps (B, C, h, w) of images (B, 3, H, W), from host to host."""
        images = DeviceCopy(images, self._coming).arrive()
        features = frozen_features(self.model, dict(img=images))
        return [HostCopy(level.to(self.cache.layout.torch_dtype), self._leaving)
                for level in features]

    def _records(self, shard: Shard) -> int:
        return len(self.cache.layout.images_of(shard.number))

    def _stop_if_asked(self) -> None:
        if self.asked_to_stop():
            get_root_logger().warning('stopped while filling the feature cache: written '
                                      'shards are kept, and the next run computes the others')
            raise SystemExit(PREEMPTED)


def store(data: ShardData, rows: slice, features: list[HostCopy], labels: Tensor) -> None:
    """Stores feature maps (B, C, h, w) and labels (B, H, W) in rows of a shard."""
    for rows_of_level, level in zip(data.features, features, strict=True):
        rows_of_level[rows] = level.wait()
    data.labels[rows] = labels


class _Writer:
    """Writes shards in a thread, one at a time, while the next one is computed.

    Args:
        cache: Cache that the shards are of.
    """

    def __init__(self, cache: FeatureCache):
        self._cache, self._pool = cache, ThreadPoolExecutor(1)
        self._writing: Future | None = None

    def write(self, shard: Shard, data: ShardData) -> None:
        """Has a shard written once the one before is.

        Raises:
            SaveError: If that could not be written.
        """
        if self._writing is not None:
            self._writing.result()
        self._writing = self._pool.submit(self._write, shard, data)

    def _write(self, shard: Shard, data: ShardData) -> None:
        self._cache.write(shard, data)
        self._cache.release(shard)

    def __enter__(self) -> '_Writer':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._pool.shutdown()
        if kind is None and self._writing is not None:
            self._writing.result()


class _ShardSampler:
    """Yields the batches of shards, and records them, because loader workers run ahead.

    Attributes:
        batches: (shard, rows in it) of the batches that were yielded, in order.
    """

    def __init__(self, cache: FeatureCache, shards: Iterable[Shard]):
        self.cache, self.shards = cache, shards
        self.batches: deque[tuple[Shard, slice]] = deque()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for shard in self.shards:
            images = self.cache.layout.images_of(shard.number)
            for start in range(0, len(images), BATCH):
                rows = slice(start, min(start + BATCH, len(images)))
                self.batches.append((shard, rows))
                yield [(shard.view, image) for image in images[rows]]
