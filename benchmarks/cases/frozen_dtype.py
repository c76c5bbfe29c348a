"""Frozen backbones of 8 bits beside bfloat16: time, memory, error of the maps, probes on them.

Blocks have the real width and random weights. Errors of random weights say that the arithmetic is
right; those of trained weights are logged at the start of any training with
``model.backbone.frozen_dtype``, on its first crop, and written into its checkpoints. Where the
device multiplies no 8 bits, tokens are rounded for a second figure, as a GPU does it.

Probes are runs of the tiny linear recipe on the demonstration data, whose backbone is random.

    python -m benchmarks frozen_dtype
"""
import copy
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.cases.blocks import DEPTH, through
from benchmarks.context import Context, at_least, at_most
from benchmarks.execution import ROOT
from benchmarks.networks import block_flops, crop_of, fill, matmul, recipe
from benchmarks.processes import call_in_process
from benchmarks.registry import benchmark
from mmseg_custom.checkpoint.load import load_backbone
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.engine.build import build_network
from mmseg_custom.layers.quantized_linear import (
    DTYPES,
    has_product,
    quantize_linears,
    quantize_rows,
    quantized_layers,
)
from mmseg_custom.models import InternViT6B
from mmseg_custom.peak_memory import process_peak

PLAIN = 'bfloat16'
FASTER = {'fp8': 1.4}  # than bfloat16, expected where the device multiplies fp8
SEEDS, ITERATIONS = 3, 100
DATA = ROOT / 'data/ade_demo'


@benchmark('Frozen blocks in int8 and fp8: time, memory, error of the maps, mIoU of probes',
           minutes=6, order=14)
def case(run: Context) -> None:
    """Measures blocks, the memory that a load takes, and probes."""
    _measure_blocks(run)
    _measure_memory(run)
    _train_probes(run)


def _measure_blocks(run: Context) -> None:
    """Adds the time of two blocks by dtype, eager and, on a GPU, compiled; and their errors."""
    cfg, crops = recipe('linear_probing', run), 2 if run.on_gpu else 1
    cfg.model.backbone.update(depth=DEPTH, out_indices=[DEPTH - 1])
    model = build_network(cfg, on_meta=True, trained=False).requires_grad_(False)
    apply_precision(model, torch.bfloat16, run.device)
    blocks = {PLAIN: fill(model, run.device).eval().backbone.blocks}
    for kind in DTYPES:
        blocks[kind] = quantize_linears(copy.deepcopy(blocks[PLAIN]), kind).to(run.device)
    height, width = crop_of(cfg)
    tokens = 1 + (height // 14) * (width // 14)
    x = torch.randn(crops, tokens, model.backbone.embed_dim, device=run.device,
                    dtype=torch.bfloat16)
    _add_errors(run, blocks, x)
    product, flops = matmul(run, torch.bfloat16, crops * tokens)
    for words in ('', ', compiled') if run.on_gpu and not run.tiny else ('',):
        work: dict[str, Callable[[], object]] = {
            kind: through(_compiled(each) if words else each, x) for kind, each in blocks.items()}
        times = run.measure({**work, 'product': product}, warm_up=2)
        rate = flops / statistics.median(times['product'])
        for kind in DTYPES:
            multiplies = has_product(kind, torch.device(run.device))
            run.row(f'two blocks in {kind}{words}', 'ms', times[kind], {PLAIN: times[PLAIN]},
                    limit=block_flops(crops, cfg, DEPTH) / rate,
                    targets=[at_least(PLAIN, FASTER[kind])] if multiplies and kind in FASTER
                    else [], notes='the limit is that of bfloat16; ' + (
                        'products in 8 bits' if multiplies else 'weights alone are in 8 bits'))
    for kind in DTYPES:
        run.row(f'bytes of two blocks in {kind}', 'MiB', _bytes(blocks[kind]),
                {PLAIN: _bytes(blocks[PLAIN])}, targets=[at_most(PLAIN, 0.51)])


def _compiled(blocks: nn.ModuleList) -> list[Callable[[Tensor], Tensor]]:
    return [torch.compile(block.forward, dynamic=False) for block in blocks]


def _add_errors(run: Context, blocks: dict[str, nn.ModuleList], x: Tensor) -> None:
    """Adds the relative error of the tokens behind the two blocks."""
    exact = through(blocks[PLAIN], x)()
    for kind in DTYPES:
        errors = {'': through(blocks[kind], x)()}
        if not has_product(kind, torch.device(run.device)):
            with _rounded_tokens(blocks[kind], kind):
                errors[', tokens rounded as on a GPU'] = through(blocks[kind], x)()
        for words, found in errors.items():
            change = (exact - x).float().norm()  # what the blocks add to their input
            run.fact(**{f'{kind}{words}: error of two blocks, of what they add': float(
                (found - exact).float().norm() / change)})


@contextmanager
def _rounded_tokens(blocks: nn.ModuleList, kind: str) -> Iterator[None]:
    """Rounds the inputs of layers to 8 bits and back, which gives what a product in 8 bits does."""
    def rounded(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        values, scales = quantize_rows(inputs[0], DTYPES[kind])
        return (values.float() * scales).to(inputs[0].dtype)

    handles = [layer.register_forward_pre_hook(rounded) for layer in quantized_layers(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def _measure_memory(run: Context) -> None:
    """Adds the peak of a process that loads a file, over that of one that loads nothing."""
    depth, width = (2, 256) if run.tiny else (4, 3200)
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/backbone.pth'
        call_in_process(write_weights, path, depth, width)
        base = call_in_process(peak_of_load, '', depth, width, None)
        peaks = {kind: call_in_process(peak_of_load, path, depth, width, kind) - base
                 for kind in (None, *DTYPES)}
    for kind in DTYPES:
        run.row(f'peak of the host while {depth} blocks are loaded into {kind}', 'MiB',
                peaks[kind], {PLAIN: peaks[None]})


def write_weights(path: str, depth: int, width: int) -> None:
    """Writes random weights of a backbone."""
    torch.save(_backbone(depth, width, None).state_dict(), path)


def peak_of_load(path: str, depth: int, width: int, kind: str | None) -> int:
    """Returns the peak of this process after it has loaded a file and read what it holds."""
    with torch.device('meta'):
        backbone = _backbone(depth, width, kind)
    if path:
        load_backbone(backbone, path)
        for tensor in backbone.state_dict().values():
            tensor.view(-1)[::1024].sum()
    return process_peak('cpu')


def _backbone(depth: int, width: int, kind: str | None) -> InternViT6B:
    return InternViT6B(embed_dim=width, num_heads=max(width // 128, 1), depth=depth,
                       freeze_vit=True, out_indices=[depth - 1], frozen_dtype=kind)


def _train_probes(run: Context) -> None:
    """Adds the mIoU of probes by dtype and seed, and how many of their labels are equal."""
    if not DATA.is_dir():
        return run.missing('mIoU of probes',
                           'no demonstration data: python tools/make_demo_data.py')
    # On a GPU their processes are started more than they compute.
    seeds, iterations = 1 if run.tiny or run.on_gpu else SEEDS, 2 if run.tiny else ITERATIONS
    miou: dict[str | None, list[float]] = {kind: [] for kind in (None, *DTYPES)}
    equal: dict[str, list[float]] = {kind: [] for kind in DTYPES}
    start = time.monotonic()
    for seed in range(seeds):
        if seed and run.time_left() < 1.2 * (time.monotonic() - start) / seed:
            seeds = seed
            break
        labels = {}
        for kind in miou:
            found, labels[kind] = _probe(run.device, kind, seed, iterations)
            miou[kind].append(found)
        for kind in DTYPES:
            equal[kind].append(float(np.mean([np.mean(a == b) for a, b in zip(
                labels[kind], labels[None])])))
    for kind in DTYPES:
        run.row(f'mIoU of a probe on maps in {kind}', '%', miou[kind], {PLAIN: miou[None]},
                higher_is_better=True, notes=f'seeds 0 to {seeds - 1}, {iterations} iterations')
        run.fact(**{f'labels of a probe in {kind} that are those in {PLAIN}': equal[kind]})


def _probe(device: str, kind: str | None, seed: int,
           iterations: int) -> tuple[float, list[np.ndarray]]:
    """Trains and tests the tiny linear recipe; returns mIoU in % and the labels of all images."""
    with tempfile.TemporaryDirectory() as folder:
        config = 'configs/tiny/linear_probing_tiny.py'
        settings = ['--device', device, '--work-dir', folder, '--cfg-options',
                    f'model.backbone.frozen_dtype={kind}']
        _run('tools/train.py', config, '--no-validate', '--seed', seed, *settings,
             f'runner.max_iters={iterations}', f'checkpoint_config.interval={iterations}')
        _run('tools/test.py', config, f'{folder}/latest.pth', '--eval', 'mIoU', *settings)
        _run('tools/test.py', config, f'{folder}/latest.pth', '--out', f'{folder}/labels.pkl',
             *settings)
        result, = Path(folder).glob('eval_*.json')
        with open(f'{folder}/labels.pkl', 'rb') as file:
            return 100 * json.loads(result.read_text())['metric']['mIoU'], pickle.load(file)


def _run(*words: object) -> None:
    """Runs a tool.

    Raises:
        RuntimeError: If it failed, with the end of what it said.
    """
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True,
                          text=True)
    if done.returncode:
        raise RuntimeError(f'{words[0]}: ' + ' '.join(done.stderr.strip().splitlines()[-2:]))
