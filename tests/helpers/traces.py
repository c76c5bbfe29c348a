"""Trains a tiny segmentor under several engines, in forked processes of one command.

    python tests/helpers/traces.py FOLDER NAME=JSON ...

With ``save`` a run saves a checkpoint of that name in the folder after half of its iterations;
with ``resume`` and ``start`` it resumes from one. With ``hosts`` its processes pretend to be on
several, dealt out in turns; ``backbone`` has options of the backbone; with ``queried`` queries pass
so many of its blocks, in the place of UPerNet. Each NAME.pth in the folder
then holds ``losses`` (one an iteration, the mean over all processes), ``norms`` (of the gradients),
``state_dict`` (whole tensors) and ``map`` (labels of a picture). Frozen weights must keep their
bits, and get no gradients. Forked before autograd has threads, the processes share one import of
the libraries.
"""
import json
import multiprocessing
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from mmcv.runner import build_optimizer
from torch import nn
from torch.distributed.tensor import DTensor

import mmseg_custom  # noqa: F401 - registers, before mmseg

from mmseg.models import HEADS, build_segmentor  # isort: skip
from helpers.commands import free_port
from helpers.tiny_networks import segmentor_config

from mmseg_custom.checkpoint import (
    load_optimizer,
    load_segmentor,
    load_shards,
    open_checkpoint,
    save_checkpoint,
    save_sharded,
)
from mmseg_custom.distributed import precision
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.parallelize import (
    choose_engine,
    evaluation_mode,
    is_sharded,
    no_sync,
    parallelize,
)
from mmseg_custom.engine.hooks import clip_gradients
from mmseg_custom.layers.plain_mask import pixel_scores
from mmseg_custom.models import PlainMaskHead
from mmseg_custom.shards import own_shard

DEFAULTS = dict(ranks=1, engine='auto', iters=6, dtype='float32', accumulation=1, norm=True,
                clip=1.0, checkpoint_every=1, checkpoint_blocks=None, prefetch=1, depth=4, unread=0,
                hybrid=False, reshard_after_forward='auto', reduce_dtype='fp32', cpu_offload=False,
                compile=False, save=None, resume=None, start=0, native=False,
                frozen=False, hosts=1, heads='float32', backbone={}, queried=0, side=28)
GLOBAL_BATCH, CLASSES = 4, 5


@HEADS.register_module()
class WithoutDraws(PlainMaskHead):
    """A head whose loss, unlike that of matched masks, draws no points: processes can agree."""

    def forward_train(self, inputs, img_metas, gt_semantic_seg, train_cfg):
        """Computes the cross-entropy of all predictions, by which queries are masked."""
        scores = [pixel_scores(*each) for each in self(inputs, of_all_blocks=True)]
        side = gt_semantic_seg.shape[-1] // scores[0].shape[-1]
        labels = nn.functional.max_pool2d(gt_semantic_seg.float(), side)
        return dict(loss_seg=sum(nn.functional.cross_entropy(each, labels[:, 0].long())
                                 for each in scores))


def queried_segmentor(blocks: int, depth: int, backbone: dict, side: int) -> nn.Module:
    """Backbone, and queries that pass its last blocks."""
    config = segmentor_config(
        test_cfg=dict(mode='slide', crop_size=(side, side), stride=(14, 14)), img_size=side,
        depth=depth, **backbone)
    config.decode_head = dict(
        type='WithoutDraws', blocks='backbone', num_blocks=blocks, in_channels=32, channels=8,
        num_classes=CLASSES, num_queries=6, num_upscalings=1)
    return build_segmentor(config)


def segmentor(norm: bool, depth: int, unread: int, frozen: bool, backbone: dict,
              queried: int, side: int) -> nn.Module:
    """Backbone, pyramid, a UPerNet and an auxiliary head; all is trained by default."""
    if queried:
        return queried_segmentor(queried, depth, backbone, side)
    config = segmentor_config(
        'upernet', heads=dict(norm_cfg=dict(type='SyncBN') if norm else None, dropout_ratio=0.0),
        test_cfg=dict(mode='slide', crop_size=(side, side), stride=(14, 14)), img_size=side,
        depth=depth + unread, out_indices=list(range(depth - 4, depth)), freeze_vit=frozen,
        **backbone)
    config.decode_head.pool_scales = (1, 2)
    config.auxiliary_head.with_norm = norm
    return build_segmentor(config)


def batch_of(iteration: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The global batch: images (4, 3, side, side) and labels (4, 1, side, side)."""
    generator = torch.Generator().manual_seed(iteration)
    images = torch.randn(GLOBAL_BATCH, 3, side, side, generator=generator)
    labels = (images.sum(1, keepdim=True) * 1.5).round().long() % CLASSES
    return images, labels


def frozen_values(model: torch.nn.Module) -> list[torch.Tensor]:
    """Copies the frozen weights, or this process's shards of them; none has a gradient."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in frozen)
    return [own_shard(p.detach()).clone() for p in frozen]


def train(rank: int, options: dict, path: Path, port: str) -> None:
    """One process of one run."""
    torch.set_num_threads(1)
    ranks = options['ranks']
    os.environ['NCCL_HOSTID'] = f'host{rank % options["hosts"]}'
    if options['engine'] != 'single':
        dist.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=ranks)
    torch.manual_seed(0)
    resume = options['resume'] and str(path.with_name(options['resume']))
    with torch.device('meta') if resume else nullcontext():
        model = segmentor(*(options[name] for name in (
            'norm', 'depth', 'unread', 'frozen', 'backbone', 'queried', 'side')))
    if options['native']:  # as on hardware with instructions for bfloat16
        precision.is_fast_on_cpu = lambda dtype: True
    engine = Engine.of(dict(type=options['engine'], **{name: options[name] for name in (
        'checkpoint_every', 'checkpoint_blocks', 'prefetch', 'hybrid', 'reshard_after_forward',
        'reduce_dtype', 'cpu_offload', 'compile')}))
    sharded = choose_engine(engine, model) == 'fsdp2'
    precision.apply_precision(model, getattr(torch, options['dtype']), 'cpu', store=not sharded,
                              head_dtype=getattr(torch, options['heads']))
    checkpoint = open_checkpoint(resume) if resume else None
    by_shards = resume and sharded and checkpoint.is_sharded
    if resume and not by_shards:
        load_segmentor(model, checkpoint, as_stored=sharded)
    model = parallelize(model, 'cpu', engine).train()
    if by_shards:
        load_shards(model.module, checkpoint)
    frozen = frozen_values(model)
    optimizer = build_optimizer(model, dict(type='AdamW', lr=1e-3, eps=1e-6))
    if resume:
        load_optimizer(optimizer, checkpoint, model.module)
    losses, norms = [], []
    for iteration in range(options['start'], options['iters']):
        images, labels = batch_of(iteration, options['side'])
        steps = options['accumulation']
        optimizer.zero_grad()
        losses.append(0.0)
        for step in range(steps):
            mine = slice(step * ranks + rank, None, ranks * steps)
            if steps == 1:
                mine = slice(rank, None, ranks)
            batch = dict(img=images[mine], gt_semantic_seg=labels[mine], img_metas=[{}])
            with no_sync(model) if step < steps - 1 else nullcontext():
                outputs = model.train_step(batch, optimizer)
                (outputs['loss'] / steps).backward()
            losses[-1] += outputs['log_vars']['loss'] / steps
        norms.append(clip_gradients(model, max_norm=options['clip']))
        optimizer.step()
        if options['save'] and iteration + 1 == options['iters'] // 2:
            save = save_sharded if is_sharded(model) else save_checkpoint
            save(model.module, str(path.with_name(options['save'])), optimizer,
                 dict(iter=iteration + 1), link_latest=True)
    assert all(map(torch.equal, frozen_values(model), frozen))
    model.eval()
    # Ranks have different numbers of windows.
    image = batch_of(0, options['side'])[0][:1].repeat(1, 1, 1, 1 + rank)
    meta = dict.fromkeys(('ori_shape', 'img_shape', 'pad_shape'), (*image.shape[2:], 3))
    meta['flip'] = False
    labels = []
    for lockstep in (True, False):
        model.module.tests_in_lockstep = lockstep  # without it the model is gathered
        with evaluation_mode(model), torch.no_grad():
            labels += model(img=[image], img_metas=[[meta]], return_loss=False)
    assert (labels[0] == labels[1]).all()
    state = {name: value.full_tensor() if isinstance(value, DTensor) else value
             for name, value in model.module.state_dict().items()}
    if rank == 0:
        torch.save(dict(losses=losses, norms=norms, state_dict=state, map=torch.tensor(labels[0])),
                   path)
    if dist.is_initialized():
        dist.destroy_process_group()


def main() -> None:
    """Runs what the command line asks for, one run after another."""
    folder = Path(sys.argv[1])
    context = multiprocessing.get_context('fork')
    for word in sys.argv[2:]:
        name, _, options = word.partition('=')
        options = {**DEFAULTS, **json.loads(options or '{}')}
        port = free_port()
        processes = [context.Process(target=train, args=(
            rank, options, folder / f'{name}.pth', port)) for rank in range(options['ranks'])]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            sys.exit(f'{name}: exit codes {[process.exitcode for process in processes]}')


if __name__ == '__main__':
    main()
