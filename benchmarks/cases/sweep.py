"""What an iteration with 8 and with 32 linear heads costs, over one with a single head.

At the real shape: two crops of 504x504, blocks of width 3200, 150 classes. Heads are trained by the
very code of tools/sweep.py (model, runner, hooks, optimizer), on the map of a real block. An
iteration is composed on the CPU: 45 times the time of a block, plus the patch embedding, plus the
heads. On a GPU all 45 blocks are built and run instead.
"""
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import torch
from mmseg.models.decode_heads import FCNHead as MMSegFCNHead
from torch import Tensor

from benchmarks.context import Context, at_most
from benchmarks.networks import IMAGES, crop_of, random_images, recipe
from benchmarks.registry import benchmark
from mmseg_custom.distributed.options import AUTO
from mmseg_custom.distributed.parallelize import unwrap
from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.sweep.backbone import SharedBackbone
from mmseg_custom.engine.sweep.grid import combinations
from mmseg_custom.engine.sweep.probe import IterationBatches, Probe

BLOCKS, HEADS = 45, (1, 8, 32)
TARGETS = {8: 1.15, 32: 1.5}


def build(run: Context, blocks: int, work_dir: str) -> tuple[SharedBackbone, list[Probe]]:
    """Builds some blocks with random weights, and 32 linear heads on the last of them."""
    cfg = recipe('linear_probing', run)
    cfg.model.backbone.update(depth=blocks, out_indices=[blocks - 1])
    cfg.optimizer.paramwise_cfg.num_layers = blocks
    cfg.update(dict(work_dir=work_dir, checkpoint_config=None, log_config=dict(
        interval=50, hooks=[dict(type='TextLoggerHook', by_epoch=False)])))
    cfg.sweep = dict(lr=[1e-5 * (i + 1) for i in range(max(HEADS))])
    classes = cfg.model.decode_head.num_classes
    names = SimpleNamespace(CLASSES=('class',) * classes, PALETTE=[[0, 0, 0]] * classes)
    of_all = Run(cfg, RunOptions(device=run.device), AUTO, Batch(IMAGES), data=dict(train=names),
                 timestamp='benchmark')
    shared = SharedBackbone(of_all, [blocks - 1])
    shared.network.to(run.device)
    probes = [Probe(one.name, replace(of_all, cfg=one.cfg), shared) for one in combinations(cfg)]
    for probe in probes:
        probe.start()
    return shared, probes


def train(probes: Sequence[Probe], batch: dict) -> None:
    """Takes one iteration of some heads."""
    batches = IterationBatches([batch], 10**4)
    for probe in probes:
        probe.step(batches)


def mmseg_loss(head: torch.nn.Module, maps: list[Tensor], labels: Tensor) -> None:
    """Runs one head forward and backward as mmseg does, with all upsampled logits in memory."""
    MMSegFCNHead.losses(head, head(maps), labels)['loss_ce'].backward()


def measure(run: Context, blocks: int) -> dict[str, list[float]]:
    """Measures each part, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        shared, probes = build(run, blocks, folder)
        network, cfg = shared.network, probes[0].run.cfg
        crop = crop_of(cfg)
        images = random_images(run.device, IMAGES, 3, *crop)
        batch = dict(img_metas=[dict(flip=False)] * IMAGES, gt_semantic_seg=torch.randint(
            0, cfg.model.decode_head.num_classes, (IMAGES, 1, *crop), device=run.device))
        batch['feats'] = shared.of_batch(dict(img=images))
        tokens = torch.randn(IMAGES, 1 + (crop[0] // 14) * (crop[1] // 14), network.embed_dim,
                             device=run.device, dtype=network.blocks[0].norm1.weight.dtype)

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
        samples = run.measure(work, rounds=5 if run.on_gpu else 2, warm_up=2 if run.on_gpu else 1)
        if run.on_gpu:
            run.profile('8 heads', lambda: train(probes[:8], batch))
        for probe in probes:
            probe.close()
    return samples


@benchmark('An iteration with 8 and 32 linear heads, over one with a single head', minutes=4,
           order=30)
def case(run: Context) -> None:
    """Measures the parts, and composes iterations of them."""
    blocks = BLOCKS if run.on_gpu and not run.tiny else 1
    seconds = measure(run, blocks)
    frozen = [BLOCKS / blocks * of_blocks + embedding for of_blocks, embedding in
              zip(seconds['blocks'], seconds['embedding'])]
    notes = f'{blocks} of {BLOCKS} blocks measured and multiplied' if blocks < BLOCKS else ''
    iterations = {n: [a + b for a, b in zip(frozen, seconds[f'{n} heads'])] for n in HEADS}
    run.row('one head alone, forward, loss, backward and step', 'ms', seconds['1 heads'],
            {"mmseg's forward, loss and backward": seconds['mmseg']})
    for n in HEADS[1:]:
        run.row(f'iteration with {n} heads', 'ms', iterations[n], {'one head': iterations[1]},
                targets=[at_most('one head', TARGETS[n])], notes=notes)
