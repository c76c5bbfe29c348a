"""What an iteration, and an evaluation, with 8 and 32 linear heads cost, over those with one head.

At the real shape: two crops of 504x504, blocks of width 3200, 150 classes. Heads are trained by the
very code of tools/sweep.py (model, runner, hooks, optimizer), on the feature map of a real block:
together (``sweep.batched``), and one after the other. On a GPU all 45 blocks run in every
iteration. On the CPU an iteration is composed: 45 times the time of a block, plus the patch
embedding, plus the heads.

An evaluation labels an image of 683x512 and measures it, with its ground truth in a file. The
former way runs each head on windows that it looks up by their content, and counts pixels as mmseg
does, for each head.

Times on the CPU are CPU times of the process.
"""
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import cv2
import numpy as np
import torch
from mmseg.core.evaluation.metrics import intersect_and_union
from mmseg.models.decode_heads import FCNHead as MMSegFCNHead
from torch import Tensor

from benchmarks.cases.evaluation import TINY_SIZES, Test, draw
from benchmarks.context import Context, at_most
from benchmarks.networks import IMAGES, crop_of, random_images, recipe
from benchmarks.registry import benchmark
from mmseg_custom.distributed.options import AUTO
from mmseg_custom.distributed.parallelize import unwrap
from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.predict import predict_all, predict_labels
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.sweep.backbone import SharedBackbone
from mmseg_custom.engine.sweep.evaluation import SharedPrediction
from mmseg_custom.engine.sweep.grid import combinations
from mmseg_custom.engine.sweep.head_steps import HeadSteps
from mmseg_custom.engine.sweep.probe import IterationBatches, Probe
from mmseg_custom.evaluation.areas import Areas
from mmseg_custom.losses import upsampled

BLOCKS, HEADS, TINY_HEADS = 45, (1, 8, 32), (1, 2, 4)
TARGETS = {8: 1.15, 32: 1.5}
IMAGE = {(512, 683): 1}
ONE_BY_ONE, FORMER = 'one after the other', 'the former way'


class Sweep:
    """Some blocks with random weights, and linear heads on the last of them.

    Args:
        run: The case.
        blocks: Number of blocks.
        folder: Folder for the logs of the heads.
    """

    def __init__(self, run: Context, blocks: int, folder: str):
        cfg = recipe('linear_probing', run)
        cfg.model.backbone.update(depth=blocks, out_indices=[blocks - 1])
        cfg.optimizer.paramwise_cfg.num_layers = blocks
        cfg.data = {}  # which would take most of the time in which heads write their configs
        cfg.update(dict(work_dir=folder, checkpoint_config=None, log_config=dict(
            interval=50, hooks=[dict(type='TextLoggerHook', by_epoch=False)])))
        self.counts = TINY_HEADS if run.tiny else HEADS
        cfg.sweep = dict(lr=[1e-5 * (i + 1) for i in range(self.counts[-1])])
        self.cfg, self.device = cfg, run.device
        self.classes, self.crop = cfg.model.decode_head.num_classes, crop_of(cfg)
        names = SimpleNamespace(CLASSES=('class',) * self.classes,
                                PALETTE=[[0, 0, 0]] * self.classes)
        self._run = Run(cfg, RunOptions(device=run.device), AUTO, Batch(IMAGES),
                        data=dict(train=names), timestamp='benchmark')
        self.shared = SharedBackbone(self._run, [blocks - 1])
        self.shared.network.to(run.device)
        self.images = random_images(run.device, IMAGES, 3, *self.crop)
        self.batch = dict(img_metas=[dict(flip=False)] * IMAGES, gt_semantic_seg=torch.randint(
            0, self.classes, (IMAGES, 1, *self.crop), device=run.device))

    def heads(self, batched: bool) -> tuple[list[Probe], HeadSteps]:
        """Builds as many heads as are measured at most."""
        probes = [Probe(one.name, replace(self._run, cfg=one.cfg), self.shared)
                  for one in combinations(self.cfg)]
        for probe in probes:
            probe.start()
        return probes, HeadSteps(probes, batched)

    def step(self, steps: HeadSteps, probes: Sequence[Probe], maps: list[Tensor] | None) -> None:
        """Takes one iteration of heads, on feature maps that are computed unless they are given."""
        feats = self.shared.of_batch(dict(img=self.images)) if maps is None else maps
        left = steps.step(probes, IterationBatches([{**self.batch, 'feats': feats}], 10**4))
        assert len(left) == len(probes), 'a head has diverged'

    def parts(self) -> dict[str, Callable[[], object]]:
        """Returns what an iteration on the CPU is composed of, besides heads."""
        network = self.shared.network
        tokens = torch.randn(IMAGES, 1 + (self.crop[0] // 14) * (self.crop[1] // 14),
                             network.embed_dim, device=self.device,
                             dtype=network.blocks[0].norm1.weight.dtype)

        def blocks() -> None:
            x = tokens
            for block in network.blocks:
                x = block(x)

        return dict(blocks=torch.no_grad()(blocks),
                    embedding=torch.no_grad()(lambda: network.patch_embed(self.images)))


def measure_training(run: Context, sweep: Sweep, blocks: int) -> list[Probe]:
    """Measures iterations; returns heads."""
    composed = not run.on_gpu
    maps = sweep.shared.of_batch(dict(img=sweep.images)) if composed else None
    together, alone = sweep.heads(batched=True), sweep.heads(batched=False)
    work: dict[str, Callable[[], object]] = dict(sweep.parts()) if composed else {}
    for n in sweep.counts:
        for name, (probes, steps) in dict(together=together, alone=alone).items():
            work[f'{n} {name}'] = partial(sweep.step, steps, probes[:n], maps)
    samples = run.measure(work, rounds=5 if run.on_gpu else 2, warm_up=2 if run.on_gpu else 1,
                          clock=clock_of(run))
    notes = ''
    if composed:
        run.row('a head alone, on feature maps that are there', 'ms', samples['1 alone'],
                {"mmseg's forward, loss and backward": run.measure(dict(mmseg=partial(
                    mmseg_loss, unwrap(alone[0][0].model).decode_head, maps,
                    sweep.batch['gt_semantic_seg'])), rounds=2, warm_up=1, clock='cpu')['mmseg']})
        for n in sweep.counts[1:]:
            run.row(f'{n} heads, on feature maps that are there', 'ms', samples[f'{n} together'],
                    {ONE_BY_ONE: samples[f'{n} alone']})
        frozen = [BLOCKS / blocks * a + b for a, b in zip(samples['blocks'], samples['embedding'])]
        samples = {name: [a + b for a, b in zip(frozen, values)]
                   for name, values in samples.items() if name[0].isdigit()}
        notes = f'{blocks} of {BLOCKS} blocks measured and multiplied'
    for n in sweep.counts[1:]:
        run.row(f'iteration with {n} heads', 'ms', samples[f'{n} together'],
                {'one head': samples['1 alone'], ONE_BY_ONE: samples[f'{n} alone']},
                targets=[at_most('one head', TARGETS[n])] if n in TARGETS else [], notes=notes)
    if run.on_gpu:
        measure_strips(run, sweep)
        run.profile('32 heads together', work[f'{sweep.counts[-1]} together'])
        run.profile('32 heads one after the other', work[f'{sweep.counts[-1]} alone'])
    for probe in together[0]:
        probe.close()
    return alone[0]


def measure_strips(run: Context, sweep: Sweep) -> None:
    """Measures the loss of many heads with strips of fewer floats, which a GPU's cache may hold."""
    most, grid = sweep.counts[-1], sweep.crop[0] // 14
    logits = torch.randn(most, IMAGES, sweep.classes, grid, grid, device=run.device)
    labels = sweep.batch['gt_semantic_seg'].squeeze(1)

    def loss(floats: int) -> None:
        with patch.dict(upsampled.STRIP_FLOATS, cuda=floats):
            upsampled.upsampled_cross_entropy(logits.requires_grad_(), labels)[0].sum().backward()

    usual = upsampled.STRIP_FLOATS['cuda']
    names = {f'strips of {usual // part * 4 >> 20} MiB': usual // part for part in (1, 2, 4, 8)}
    samples = run.measure({name: partial(loss, floats) for name, floats in names.items()})
    first, *others = names
    run.row(f'loss of {most} heads, forward and backward', 'ms', samples[first],
            {name: samples[name] for name in others}, notes=f'ours: {first}')


class Labelled(Test):
    """Images with ground truth in files, and the two ways to measure predictions."""

    def areas(self) -> Areas:
        """Returns what measures predictions as a sweep does."""
        return Areas(SimpleNamespace(
            CLASSES=('class',) * 150, ignore_index=255, reduce_zero_label=False,
            get_gt_seg_map_by_idx=self.ground_truth))

    def ground_truth(self, index: int) -> np.ndarray:
        """Reads a ground truth."""
        return cv2.imread(f'{self.folder}/{index}.png', cv2.IMREAD_UNCHANGED)

    def as_mmseg(self, labels: Sequence[np.ndarray], indices: Sequence[int]) -> list[tuple]:
        """Measures predictions as mmseg's data sets do."""
        return [intersect_and_union(own, self.ground_truth(index), 150, 255)
                for own, index in zip(labels, indices)]


def measure_evaluation(run: Context, sweep: Sweep, probes: Sequence[Probe]) -> None:
    """Measures evaluations of an image with one head and with all, and compares their results."""
    with tempfile.TemporaryDirectory() as folder:
        images = Labelled(draw(TINY_SIZES if run.tiny else IMAGE, sweep.crop[0]) * (
            4 if run.on_gpu else 1), folder)
        keep = images.areas()

        def evaluate(count: int) -> list:
            models = [probe.model for probe in probes[:count]]
            return [own.in_order() for own in predict_all(
                models, images, run.device, keep, labels_of=SharedPrediction(models, sweep.shared))]

        def former(count: int) -> list:
            models = [probe.model for probe in probes[:count]]

            def labels_of(views: list, metas: list) -> list:
                labels = [predict_labels(model, views, metas) for model in models]
                sweep.shared.clear()
                return labels

            return [own.in_order() for own in predict_all(models, images, run.device,
                                                          images.as_mmseg, labels_of=labels_of)]

        most = sweep.counts[-1]
        samples = run.measure({'1': partial(evaluate, 1), 'all': partial(evaluate, most),
                               FORMER: partial(former, most)}, rounds=2, warm_up=1,
                              clock=clock_of(run))
        samples = {name: [seconds / len(images.images) for seconds in values]
                   for name, values in samples.items()}
        run.row(f'evaluation of an image with {most} heads', 'ms', samples['all'],
                {'one head': samples['1'], FORMER: samples[FORMER]},
                targets=[at_most('one head', 1.5)] if run.on_gpu else [],
                notes='' if run.on_gpu else 'a backbone of one block')
        pairs = [(a, b) for of_head in zip(evaluate(most), former(most))
                 for image in zip(*of_head) for a, b in zip(*image)]
        if not all(torch.equal(a, b) for a, b in pairs):
            run.wrong('the areas of images differ from those of the former way')


def clock_of(run: Context) -> str:
    """Returns the clock of a machine on which nothing, or perhaps others, compute beside."""
    return 'wall' if run.on_gpu else 'cpu'


def mmseg_loss(head: torch.nn.Module, maps: list[Tensor], labels: Tensor) -> None:
    """Runs one head forward and backward as mmseg does, with all upsampled logits in memory."""
    MMSegFCNHead.losses(head, head(maps), labels)['loss_ce'].backward()


@benchmark('An iteration and an evaluation with 8 and 32 linear heads, over those with one',
           minutes=4, order=16)
def case(run: Context) -> None:
    """Measures iterations, then evaluations."""
    blocks = BLOCKS if run.on_gpu and not run.tiny else 1
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(run, blocks, folder)
        probes = measure_training(run, sweep, blocks)
        measure_evaluation(run, sweep, probes)
        for probe in probes:
            probe.close()
