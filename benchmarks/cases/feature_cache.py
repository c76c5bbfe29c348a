"""Training from a feature cache against running the frozen backbone, at the real width.

The linear-probing recipe of the 6B network, random weights, and two crops of 504x504. On a GPU all
45 blocks that the recipe reads are run. On the CPU one block is, and its time is counted 45 times:
blocks are alike, and their time does not depend on their weights. Three things are measured in
turns:

    backbone   patch embedding and blocks, without gradients
    head       forward, loss, backward and AdamW's step of the linear head on 150 classes
    reading    two records of a cache: mapped, compared with their checksums, stacked

and compared: uncached = backbone + head (loading and augmenting images is left out, in favour of
uncached), cached = reading + head, one after the other in one process, without loader workers. The
files of the cache are in the page cache: add what your disk takes for the bytes of a step.

Filling a cache is the backbone on batches of four crops, whose feature maps go into the memory of a
file: in a thread beside, or in turns with the backbone; the limit is the backbone alone. Loading
crops and writing files, which others do meanwhile, are left out.
"""
import tempfile
from functools import partial

import torch
from mmseg.models import build_segmentor
from torch import nn

from benchmarks.context import Context
from benchmarks.networks import IMAGES, crop_of, random_images, recipe
from benchmarks.registry import benchmark
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.engine.background import Background
from mmseg_custom.engine.cached.fill import BATCH, Filler, store
from mmseg_custom.feature_cache import FeatureCache, RecordLayout, Shard
from mmseg_custom.feature_cache.shards import ShardData

BLOCKS, RECORDS = 45, 12
FILLED = 4  # batches of crops


def build(run: Context, blocks: int) -> tuple[nn.Module, tuple[int, int]]:
    """Builds the recipe's segmentor with as many blocks; returns its crop in pixels, too."""
    cfg = recipe('linear_probing', run)
    cfg.model.backbone.update(depth=blocks, out_indices=[blocks - 1])
    with torch.device(run.device):
        model = build_segmentor(cfg.model)
    apply_precision(model, torch.bfloat16, run.device)
    return model.train(), crop_of(cfg)


def fill_cache(folder: str, model: nn.Module, crop: tuple[int, int]) -> FeatureCache:
    """Writes a cache of random records, as the recipe has them."""
    shapes = tuple(model.backbone.frozen_feature_shapes(*crop))
    layout = RecordLayout.of(RECORDS, shapes, crop, 'bf16')
    cache = FeatureCache.of(folder, {}, layout)
    cache.begin({}, {})
    for shard in cache.shards(1):
        data = ShardData.empty(layout, len(layout.images_of(shard.number)))
        for tensor in data.features:
            tensor.normal_()
        data.labels.random_(0, 150)
        cache.write(Shard(*shard), data)
    return cache


class Steps:
    """The parts of an iteration.

    Args:
        model: Segmentor of :func:`build`.
        cache: Cache of :func:`fill_cache`.
        device: 'cuda' or 'cpu'.
        crop: Height and width of a crop in pixels.
    """

    def __init__(self, model: nn.Module, cache: FeatureCache, device: str, crop: tuple[int, int]):
        self.model, self.cache, self.device, self.row = model, cache, device, 0
        self.optimizer = torch.optim.AdamW(model.decode_head.parameters(), lr=4e-5)
        self.images = random_images(device, IMAGES, 3, *crop)
        self.tokens = torch.randn(IMAGES, 1 + (crop[0] // 14) * (crop[1] // 14),
                                  model.backbone.embed_dim, device=device, dtype=torch.bfloat16)
        self.feats, self.labels = self.reading()

    @torch.no_grad()
    def block(self) -> None:
        """Runs one block."""
        self.model.backbone.blocks[0](self.tokens)

    def backbone(self) -> None:
        """Runs embedding and blocks, and makes maps."""
        self.model.backbone.frozen_features(self.images)

    def head(self) -> None:
        """Takes a step of the head."""
        self.optimizer.zero_grad()
        maps = [x.float() for x in self.feats]
        losses = self.model.decode_head.forward_train(maps, None, self.labels, None)
        losses['loss_ce'].backward()
        self.optimizer.step()

    def reading(self) -> tuple[list, torch.Tensor]:
        """Reads the next records, as if for the first time: maps and labels on the device."""
        images = [(self.row + i) % self.cache.layout.images for i in range(IMAGES)]
        self.row += IMAGES
        self.cache._checked.clear()
        found = [self.cache.read(image, 0) for image in images]
        maps = [torch.stack(parts).to(self.device) for parts in zip(*(maps for maps, _ in found))]
        labels = torch.stack([labels for _, labels in found])
        return maps, labels[:, None].long().to(self.device)


class Filling:
    """Some batches of crops whose feature maps are stored for a file of a cache.

    Args:
        model: Segmentor of :func:`build`.
        cache: Cache of :func:`fill_cache`.
        run: Settings.
        crop: Height and width of a crop in pixels.
        levels: Number of feature maps of a crop.
    """

    def __init__(self, model: nn.Module, cache: FeatureCache, run: Context, crop: tuple[int, int],
                 levels: int):
        self.backbone, self.device = model.backbone, run.device
        depth = len(model.backbone.blocks)
        self.backbone.out_indices = list(range(depth - levels, depth))
        batches = 2 if run.tiny else FILLED
        layout = RecordLayout.of(batches * BATCH, cache.layout.shapes[:1] * levels, crop, 'bf16')
        self.data = ShardData.empty(layout, batches * BATCH)
        self.filler = Filler(FeatureCache.of(cache.folder, {}, layout), 1, [], model, run.device)
        self.rows = [slice(i * BATCH, (i + 1) * BATCH) for i in range(batches)]
        self.images = torch.randn(BATCH, 3, *crop)
        self.labels = torch.zeros(BATCH, *crop, dtype=torch.uint8)

    def ours(self) -> None:
        """Stores feature maps beside, as a run does."""
        with Background(self.device) as background:
            for rows in self.rows:
                features = self.filler.compute(self.images)
                background.put(partial(store, self.data, rows, features, self.labels))

    def in_turns(self) -> None:
        """Stores feature maps before the next batch."""
        for rows in self.rows:
            features = self.backbone.frozen_features(self.images.to(self.device))
            for stored, level in zip(self.data.features, features):
                stored[rows] = level.to(stored.dtype)
            self.data.labels[rows] = self.labels

    def backbone_alone(self) -> None:
        """Computes the same feature maps."""
        for _ in self.rows:
            self.backbone.frozen_features(self.images.to(self.device))


def measure_filling(run: Context, model: nn.Module, cache: FeatureCache,
                    crop: tuple[int, int]) -> None:
    """Measures the filling of a cache with one feature map of a crop, and with four."""
    for levels in (1, 4):
        title = f'filling with {levels} feature map(s) a crop'
        if not run.on_gpu and not (run.tiny and levels == 1):
            run.missing(title, 'on the CPU nothing overlaps')
            continue
        filling = Filling(model, cache, run, crop, min(levels, len(model.backbone.blocks)))
        times = run.measure({'ours': filling.ours, 'in turns': filling.in_turns,
                             'alone': filling.backbone_alone}, rounds=3, warm_up=1)
        run.row(title, 'ms', times['ours'], {'in turns': times['in turns']}, limit=times['alone'],
                notes=f'{len(filling.rows)} batches of {BATCH} crops')


@benchmark('Training from a feature cache, against running the backbone', minutes=2, order=60)
def case(run: Context) -> None:
    """Measures the parts, and composes iterations of them."""
    built = BLOCKS if run.on_gpu and not run.tiny else 1
    model, crop = build(run, built)
    with tempfile.TemporaryDirectory() as folder:
        cache = fill_cache(folder, model, crop)
        steps = Steps(model, cache, run.device, crop)
        samples = run.measure({name: partial(getattr(steps, name)) for name in (
            'block', 'backbone', 'head', 'reading')})
        record = cache.layout.record_bytes
    uncached = [backbone + (BLOCKS - built) * block + head for backbone, block, head in
                zip(samples['backbone'], samples['block'], samples['head'])]
    cached = [reading + head for reading, head in zip(samples['reading'], samples['head'])]
    notes = f'{built} of {BLOCKS} blocks measured and multiplied' if built < BLOCKS else ''
    run.row('iteration of linear probing from a cache', 'ms', cached,
            {'running the backbone': uncached}, notes=notes)
    run.row('reading the records of two crops', 'ms', samples['reading'])
    run.fact(bytes_of_a_record=record)
    measure_filling(run, model, cache, crop)
