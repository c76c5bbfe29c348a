"""Training from a feature cache against running the frozen backbone, at the real width.

    python benchmarks/feature_cache.py

Takes the linear-probing recipe of the 6B network, random weights, and two crops of 504x504. On a
GPU all 45 blocks that the recipe reads are run. On the CPU one block is, and its time is counted 45
times: blocks are alike, and their time does not depend on their weights. Three things are timed in
turns:

    backbone   patch embedding and blocks, without gradients
    head       forward, loss, backward and AdamW's step of the linear head on 150 classes
    reading    two records of a cache: mapped, compared with their checksums, stacked

and compared: uncached = backbone + head (loading and augmenting images is left out, in favour of
uncached), cached = reading + head, one after the other in one process, without loader workers. The
files of the cache are in the page cache: add what your disk takes for the bytes of a step.
"""
import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mmcv  # noqa: E402, I001
import torch  # noqa: E402
from mmseg.models import build_segmentor  # noqa: E402
from torch import nn  # noqa: E402

import mmseg_custom  # noqa: E402,F401 - before mmseg, which needs its stand-in
from mmseg_custom.distributed.precision import apply_precision  # noqa: E402
from mmseg_custom.feature_cache import FeatureCache, RecordLayout, Shard  # noqa: E402
from mmseg_custom.feature_cache.shards import ShardData  # noqa: E402
from mmseg_custom.units import format_bytes  # noqa: E402

RECIPE = ('configs/intern_vit_6b/linear_probing/'
          'linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py')
CROP, CROPS = 504, 2  # pixels; crops of a process's step in the published recipe


def build(device: str, blocks: int) -> nn.Module:
    """The recipe's segmentor with as many blocks."""
    cfg = mmcv.Config.fromfile(str(Path(__file__).resolve().parents[1] / RECIPE))
    cfg.model.backbone.update(pretrained=None, depth=blocks, out_indices=[blocks - 1])
    with torch.device(device):
        model = build_segmentor(cfg.model)
    apply_precision(model, torch.bfloat16, device)
    return model.train()


def fill(folder: str, model: nn.Module, records: int) -> FeatureCache:
    """A cache of random records, as the recipe has them."""
    shapes = tuple(model.backbone.frozen_feature_shapes(CROP, CROP))
    layout = RecordLayout.of(records, shapes, (CROP, CROP), 'bf16')
    cache = FeatureCache.of(folder, {}, layout)
    cache.begin({}, {})
    for shard in cache.shards(1):
        data = ShardData.empty(layout, len(layout.images_of(shard.number)))
        for tensor in data.features:
            tensor.normal_()
        data.labels.random_(0, 150)
        cache.write(Shard(*shard), data)
    return cache


class Bench:
    """Steps to be timed.

    Args:
        model: Segmentor of :func:`build`.
        cache: Cache of :func:`fill`.
        device: 'cuda' or 'cpu'.
    """

    def __init__(self, model: nn.Module, cache: FeatureCache, device: str):
        self.model, self.cache, self.device, self.row = model, cache, device, 0
        self.optimizer = torch.optim.AdamW(model.decode_head.parameters(), lr=4e-5)
        self.images = torch.randn(CROPS, 3, CROP, CROP, device=device)
        self.tokens = torch.randn(CROPS, 1 + (CROP // 14) ** 2, model.backbone.embed_dim,
                                  device=device, dtype=torch.bfloat16)
        self.feats, self.labels = self.reading()

    @torch.no_grad()
    def block(self) -> None:
        """One block."""
        self.model.backbone.blocks[0](self.tokens)

    def backbone(self) -> None:
        """Embedding, blocks, maps."""
        self.model.backbone.frozen_features(self.images)

    def head(self) -> None:
        """A step of the head."""
        self.optimizer.zero_grad()
        maps = [x.float() for x in self.feats]
        losses = self.model.decode_head.forward_train(maps, None, self.labels, None)
        losses['loss_ce'].backward()
        self.optimizer.step()

    def reading(self) -> tuple[list, torch.Tensor]:
        """The next records, never read before by this object: maps and labels on the device."""
        images = [(self.row + i) % self.cache.layout.images for i in range(CROPS)]
        self.row += CROPS
        self.cache._checked.clear()
        found = [self.cache.read(image, 0) for image in images]
        maps = [torch.stack(parts).to(self.device) for parts in zip(*(maps for maps, _ in found))]
        labels = torch.stack([labels for _, labels in found])
        return maps, labels[:, None].long().to(self.device)

    def seconds(self, name: str) -> float:
        """Of one call."""
        start = time.perf_counter()
        getattr(self, name)()
        if self.device == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--blocks', type=int, help='that are built; default: 45 on a GPU, else 1')
    parser.add_argument('--rounds', type=int, default=3, help='timings to take the median of')
    parser.add_argument('--records', type=int, default=12, help='in the cache that is read')
    parser.add_argument('--json', help='also write the figures there')
    args = parser.parse_args()
    depth = 45
    built = args.blocks or (depth if args.device == 'cuda' else 1)
    model = build(args.device, built)
    with tempfile.TemporaryDirectory() as folder:
        cache = fill(folder, model, args.records)
        bench = Bench(model, cache, args.device)
        names = ('block', 'backbone', 'head', 'reading')
        times = {name: [] for name in names}
        for name in names:
            bench.seconds(name)
        for _ in range(args.rounds):
            for name in names:
                times[name].append(bench.seconds(name))
    median = {name: statistics.median(values) for name, values in times.items()}
    backbone = median['backbone'] + (depth - built) * median['block']
    uncached, cached = backbone + median['head'], median['reading'] + median['head']
    figures = dict(
        blocks_run=built, **{f'{name}_s': value for name, value in median.items()},
        backbone_of_45_blocks_s=backbone, uncached_s=uncached, cached_s=cached,
        ratio=uncached / cached, bytes_of_a_record=cache.layout.record_bytes,
        torch=torch.__version__, threads=torch.get_num_threads(), device=args.device)
    for name, value in figures.items():
        print(f'{name:<26}{value:.4f}' if isinstance(value, float) else f'{name:<26}{value}')
    print(f'cached training takes {uncached / cached:.1f} times the iterations per second; '
          f'a record is {format_bytes(cache.layout.record_bytes, decimal=True)}')
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


if __name__ == '__main__':
    main()
