"""Training steps of a recipe at full size: time, share of the card's peak, memory as predicted.

The steps are those of tools/train.py (runner, hooks, optimizer) on the recipe's crops, already
loaded. Full tuning that the doctor predicts not to fit is tried with LowMemoryAdamW, and then with
fewer blocks. In the rival's step of linear probing the backbone runs as in the original, and the
head has mmseg's loss on logits of every pixel.

Memory is compared with the prediction in steps after the first ones. In those cuDNN searches for
its fastest convolutions, as `cudnn_benchmark` of the recipes asks, and the workspaces that it tries
are limited by the free memory alone. Those of the convolutions that it then chooses are not
predicted either, so that a recipe with UPerNet may take more than predicted.
"""
import logging
import tempfile
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from common import (
    RECIPES,
    arguments,
    backbone_flops,
    crop_of,
    fill,
    matmul_rate,
    random_images,
    recipe,
    report,
    seconds_per_call,
    wait,
    write,
)
from mmcv import Config
from mmcv.parallel import DataContainer
from mmseg.models.decode_heads import FCNHead as MMSegFCNHead
from mmseg.utils import get_root_logger
from original import OriginalBackbone
from torch import nn

from mmseg_custom.distributed.compiler import require_compiler
from mmseg_custom.distributed.options import AUTO, Engine
from mmseg_custom.distributed.parallelize import parallelize, unwrap
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.doctor.memory import MemoryEstimate, estimate
from mmseg_custom.doctor.run_shape import RunShape
from mmseg_custom.doctor.timing import measure_rates, seconds_of
from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.build import build_network, compute_dtype, master_dtype
from mmseg_custom.engine.determinism import settle_determinism, use_deterministic_kernels
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.training_runner import build_training_runner
from mmseg_custom.errors import InputError
from mmseg_custom.optim import low_memory
from mmseg_custom.units import GIB

TOLERANCE = 0.1  # of the memory that is predicted
# Of head tuning's 25.8 GiB on an H200, the workspace of one convolution is 3.9, of which 1.5 are
# predicted.
SEARCHED = 0.15
FIRST_STEPS = 3  # they load kernels, create the optimizer's state and search for convolutions
FULL = [{}, {'optimizer.type': low_memory.NAME}, {'blocks': 24}, {'blocks': 12}]


class Batches:
    """The same batch in every iteration, as mmcv's loader passes it."""

    epoch = 0

    def __init__(self, images: int, crop: tuple[int, int], classes: int):
        labels = torch.randint(classes, (images, 1, *crop))
        self._batch = dict(
            img=DataContainer([random_images('cpu', images, 3, *crop)], stack=True),
            gt_semantic_seg=DataContainer([labels], stack=True),
            img_metas=DataContainer([[dict(flip=False)] * images], cpu_only=True))

    def __next__(self) -> dict:
        return self._batch

    def __len__(self) -> int:
        return 10 ** 4


@dataclass(frozen=True)
class Case:
    """A recipe as it is run, and what the doctor predicts of it."""
    cfg: Config
    changes: dict
    predicted: MemoryEstimate


def choose(name: str, args, memory: int | None, images: int) -> Case:
    """Returns the recipe, or the largest part of it that is predicted to fit."""
    for changes in FULL if name == 'full_tuning' else [{}]:
        settings = {key: value for key, value in changes.items() if key != 'blocks'}
        if settings and not _low_memory_runs(args.device):
            continue
        cfg = recipe(name, args.tiny, args.device, **settings)
        if 'blocks' in changes and not args.tiny:
            blocks = changes['blocks']
            cfg.model.backbone.update(
                depth=blocks, out_indices=[blocks // 4 * i - 1 for i in range(1, 5)])
            cfg.optimizer.paramwise_cfg.num_layers = blocks
        shape = RunShape(args.device, 1, images, crop_of(cfg), memory=memory)
        checkpointing = not cfg.model.backbone.get('freeze_vit', False)
        predicted, = estimate(cfg, shape, Engine(type='single'), checkpointing)
        if shape.usable is None or predicted.peak <= shape.usable:
            break
    return Case(cfg, changes, predicted)


def _low_memory_runs(device: str) -> bool:
    try:
        import torchao.optim  # noqa: F401
        if device == 'cuda':
            require_compiler(low_memory.NAME)
    except (ImportError, InputError):
        return False
    return True


def build(cfg: Config, device: str) -> nn.Module:
    """Builds the wrapped segmentor with random weights, on the device from the start."""
    model = build_network(cfg, on_meta=True)
    apply_precision(model, compute_dtype(cfg, model), device, master_dtype=master_dtype(cfg))
    return parallelize(fill(model, device), device, AUTO)


def build_runner(cfg: Config, model: nn.Module, device: str, images: int, work_dir: str):
    """Builds the runner of tools/train.py, without checkpoints and evaluations."""
    classes = cfg.model.decode_head.num_classes
    names = SimpleNamespace(CLASSES=('class',) * classes, PALETTE=[[0, 0, 0]] * classes)
    cfg.update(work_dir=work_dir, log_config=dict(
        interval=50, hooks=[dict(type='TextLoggerHook', by_epoch=False)]))
    run = Run(cfg, RunOptions(device=device), AUTO, Batch(images), data=dict(train=names),
              timestamp='gpu_check')
    runner = build_training_runner(run, model, get_root_logger(), checkpoint_config=None)
    runner.call_hook('before_run')
    runner.call_hook('before_epoch')
    return runner


def rival_seconds(model: nn.Module, cfg: Config, args, images: int) -> float:
    """Measures a step of linear probing in the original's way."""
    segmentor = unwrap(model)
    backbone, head = OriginalBackbone(segmentor.backbone), segmentor.decode_head
    optimizer = torch.optim.AdamW(head.parameters(), lr=4e-5)
    batch = random_images('cpu', images, 3, *crop_of(cfg))
    labels = torch.randint(head.num_classes, (images, 1, *crop_of(cfg)))

    def step() -> None:
        maps = backbone(batch.to(args.device))
        optimizer.zero_grad()
        losses = MMSegFCNHead.losses(head, head(maps), labels.to(args.device))
        losses['loss_ce'].backward()
        optimizer.step()
        losses['loss_ce'].item()  # mmseg logs it

    head.train()
    return seconds_per_call(step, args.device, args.seconds)


def peak(device: str) -> int | None:
    """Returns the most bytes that were allocated since the last call; None on the CPU."""
    if device != 'cuda':
        return None
    found = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return found


def measure(runner, batches: Batches, args) -> dict[str, float]:
    """Trains; returns seconds of a step, the loss, and peaks of first and of later steps."""
    peak(args.device)
    for _ in range(FIRST_STEPS):
        runner.train(batches)
    wait(args.device)
    first = peak(args.device)
    step = seconds_per_call(lambda: runner.train(batches), args.device, args.seconds, warm_up=0)
    found = dict(ms_per_step=1e3 * step, loss=runner.outputs['log_vars']['loss'].item())
    if first is not None and (later := peak(args.device)) is not None:
        found.update(peak_gib=later / GIB, peak_of_first_steps_gib=first / GIB)
    return found


def deterministic_seconds(runner, batches: Batches, args) -> float:
    """Measures a step with --deterministic; the modes are as before afterwards."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    use_deterministic_kernels(args.device)
    settle_determinism(unwrap(runner.model))
    try:
        return seconds_per_call(lambda: runner.train(batches), args.device, args.seconds / 2)
    finally:
        torch.use_deterministic_algorithms(False)
        cudnn.benchmark, cudnn.deterministic = before


def compare(figures: dict, case: Case) -> list[str]:
    """Adds the doctor's prediction and the share of the matrix product; returns what is wrong."""
    predicted, flops = case.predicted, case.predicted.flops
    in_bf16 = sum(count for kernel, count in flops.items() if kernel.dtype == torch.bfloat16)
    figures.update(
        tflop={str(kernel): count / 1e12 for kernel, count in flops.items()},
        share_of_matmul=in_bf16 / 1e9 / figures['ms_per_step'] / figures['matmul_tflops'],
        predicted_gib=predicted.peak / GIB,
        predicted_parts_gib={kind: size / GIB for kind, size in predicted.parts.items()})
    flags = []
    if 'peak_gib' in figures:
        figures['peak_over_predicted'] = ratio = figures['peak_gib'] / figures['predicted_gib']
        above = SEARCHED if torch.backends.cudnn.benchmark else TOLERANCE
        if not 1 - TOLERANCE < ratio < 1 + above:
            flags.append(f'memory: {figures["peak_gib"]:.2f} GiB, predicted '
                         f'{figures["predicted_gib"]:.2f} GiB')
    if not figures['loss'] < float('inf'):
        flags.append(f'the loss is {figures["loss"]}')
    return flags


def main() -> None:
    """Predicts, trains, measures and reports."""
    args = arguments(__doc__, recipe=list(RECIPES))
    get_root_logger(log_level=logging.ERROR)
    memory = (torch.cuda.get_device_properties(0).total_memory if args.device == 'cuda'
              else None)
    images = 2
    case = choose(args.recipe, args, memory, images)
    cfg = case.cfg
    figures = dict(changes=case.changes, images=images, crop=crop_of(cfg),
                   matmul_tflops=matmul_rate(args.device, args.tiny) / 1e12,
                   backbone_forward_tflop=backbone_flops(
                       images, cfg, max(cfg.model.backbone.out_indices) + 1) / 1e12)
    write(figures, [], args.json)
    model = build(cfg, args.device)
    torch.backends.cudnn.benchmark = cfg.get('cudnn_benchmark', False)
    batches = Batches(images, crop_of(cfg), cfg.model.decode_head.num_classes)
    with tempfile.TemporaryDirectory() as folder:
        runner = build_runner(cfg, model, args.device, images, folder)
        figures.update(measure(runner, batches, args))
        figures['matmul_tflops'] = max(figures['matmul_tflops'],
                                       matmul_rate(args.device, args.tiny) / 1e12)
        flags = compare(figures, case)
        write(figures, flags, args.json)
        figures['ms_deterministic'] = 1e3 * deterministic_seconds(runner, batches, args)
    write(figures, flags, args.json)
    if args.recipe == 'linear_probing':
        rival = 1e3 * rival_seconds(model, cfg, args, images)
        figures.update(rival_ms_per_step=rival, rival_over_ours=rival / figures['ms_per_step'])
    rates, bandwidth = measure_rates(args.device, case.predicted.calls.values(),
                                     torch.backends.cudnn.benchmark, deterministic=False)
    figures.update(
        predicted_ms=1e3 * seconds_of(case.predicted, rates, bandwidth),
        tflops_by_kernel={str(kernel): rate / 1e12 for kernel, rate in rates.items()})
    report(figures, flags, args.json)


if __name__ == '__main__':
    main()
