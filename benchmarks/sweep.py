"""What an iteration with 8 and with 32 linear heads costs, over one with a single head.

    python benchmarks/sweep.py

At the real shape: two crops of 504x504, blocks of width 3200, 150 classes. Heads are trained by the
very code of tools/sweep.py (model, runner, hooks, optimizer), on the map of a real block. An
iteration is composed: 45 times the time of a block, plus the patch embedding, plus the heads. On a
GPU all 45 blocks are built and run instead. All times are of one run, in turns, the least of each.
"""
import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from mmcv import Config, ConfigDict
from mmseg.models.decode_heads import FCNHead as MMSegFCNHead
from mmseg.utils import get_root_logger
from torch import Tensor
from tqdm import tqdm

import mmseg_custom  # noqa: F401 - registers
from mmseg_custom.distributed.options import AUTO
from mmseg_custom.distributed.parallelize import unwrap
from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.sweep.backbone import SharedBackbone
from mmseg_custom.engine.sweep.grid import combinations
from mmseg_custom.engine.sweep.probe import IterationBatches, Probe

ROOT = Path(__file__).resolve().parents[1]
RECIPE = (ROOT / 'configs/intern_vit_6b/linear_probing'
          / 'linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py')
BLOCKS, CROPS, SIDE, CLASSES = 45, 2, 504, 150
HEADS = (1, 8, 32)
TARGETS = {8: 1.15, 32: 1.5}


def build(device: str, blocks: int, work_dir: str) -> tuple[SharedBackbone, list[Probe]]:
    """Builds some blocks with random weights, and 32 linear heads on the last of them."""
    cfg = Config.fromfile(str(RECIPE))
    cfg.model.backbone.update(depth=blocks, out_indices=[blocks - 1], pretrained=None)
    cfg.optimizer.paramwise_cfg.num_layers = blocks
    cfg.update(dict(work_dir=work_dir, checkpoint_config=None, log_config=dict(
        interval=50, hooks=[dict(type='TextLoggerHook', by_epoch=False)])))
    cfg.sweep = dict(lr=[1e-5 * (i + 1) for i in range(max(HEADS))])
    names = SimpleNamespace(CLASSES=('class',) * CLASSES, PALETTE=[[0, 0, 0]] * CLASSES)
    run = Run(cfg, RunOptions(device=device), AUTO, Batch(CROPS), data=dict(train=names),
              timestamp='benchmark')
    found = combinations(cfg)
    torch.manual_seed(0)
    shared = SharedBackbone(run, [blocks - 1])
    shared.network.to(device)
    probes = [Probe(one.name, replace(run, cfg=one.cfg), shared) for one in found]
    for probe in probes:
        probe.start()
    return shared, probes


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds of a call."""
    if device == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def train(probes: list[Probe], batch: dict) -> None:
    """One iteration of some heads."""
    batches = IterationBatches([batch], 10**4)
    for probe in probes:
        probe.step(batches)


def mmseg_loss(head: torch.nn.Module, maps: list[Tensor], labels: Tensor) -> None:
    """Forward and backward of one head as mmseg has it, with all upsampled logits in memory."""
    MMSegFCNHead.losses(head, head(maps), labels)['loss_ce'].backward()


def measure(device: str, blocks: int, rounds: int) -> dict[str, float]:
    """The least seconds of each part over some rounds, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        shared, probes = build(device, blocks, folder)
        network = shared.network
        images = torch.randn(CROPS, 3, SIDE, SIDE, device=device)
        batch = dict(img_metas=[dict(flip=False)] * CROPS, gt_semantic_seg=torch.randint(
            0, CLASSES, (CROPS, 1, SIDE, SIDE), device=device))
        batch['feats'] = shared.of_batch(dict(img=images))
        tokens = torch.randn(CROPS, 1 + (SIDE // 14) ** 2, network.embed_dim, device=device,
                             dtype=network.blocks[0].norm1.weight.dtype)

        def run_blocks() -> None:
            x = tokens
            for block in network.blocks:
                x = block(x)

        head = unwrap(probes[0].model).decode_head
        work = dict(
            blocks=torch.no_grad()(run_blocks),
            embedding=torch.no_grad()(lambda: network.patch_embed(images)),
            **{f'{n} heads': lambda n=n: train(probes[:n], batch) for n in HEADS},
            mmseg=lambda: mmseg_loss(head, batch['feats'], batch['gt_semantic_seg']))
        found = {name: [] for name in work}
        for _ in tqdm(range(rounds + 1), unit='round'):  # the first warms up
            for name, part in work.items():
                found[name].append(timed(part, device))
        for probe in probes:
            probe.close()
    return {name: min(seconds[1:]) for name, seconds in found.items()}


def main() -> None:
    """Measures, composes and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=('cuda', 'cpu'),
                        default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--rounds', type=int, help='default: 2; 20 on a GPU')
    parser.add_argument('--out', help='also write the figures to this JSON file')
    args = parser.parse_args()
    get_root_logger(log_level=logging.ERROR)
    on_gpu = args.device == 'cuda'
    blocks = BLOCKS if on_gpu else 1
    seconds = measure(args.device, blocks, args.rounds or (20 if on_gpu else 2))
    frozen = seconds['blocks'] * BLOCKS / blocks + seconds['embedding']
    print(f'{args.device}, {torch.get_num_threads()} threads; two crops of {SIDE}x{SIDE}; '
          f'{blocks} block(s) measured, {BLOCKS} counted')
    print(f'backbone: {frozen:.4g} s; a block: {seconds["blocks"] / blocks:.4g} s')
    print(f'forward and backward of one head with all upsampled logits: {seconds["mmseg"]:.4g} s')
    print(f'{"heads":>6}{"their s":>10}{"iteration s":>13}{"over 1 head":>13}{"at most":>9}')
    ratios = {}
    for n in HEADS:
        ratios[n] = (frozen + seconds[f'{n} heads']) / (frozen + seconds['1 heads'])
        print(f'{n:>6}{seconds[f"{n} heads"]:>10.4g}{frozen + seconds[f"{n} heads"]:>13.4g}'
              f'{ratios[n]:>13.3f}{TARGETS.get(n, ""):>9}')
    if args.out:
        Path(args.out).write_text(json.dumps(ConfigDict(
            device=args.device, seconds=seconds, backbone=frozen, ratios=ratios), indent=1))


if __name__ == '__main__':
    main()
