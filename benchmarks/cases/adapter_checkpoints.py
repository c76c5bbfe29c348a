"""Checkpoints of LoRA: their bytes, what merging takes, and what merged weights lose in bfloat16.

Bytes are those of files that are really written, with random adapters and the optimizer's state
after one step; the frozen backbone is left out of them, and has no memory. Merging is measured in a
process of its own, over a backbone of the real width, and compared with peft's own way: the network
in memory, merged layer by layer, saved. Labels are those of the tiny recipe with random adapters
on the demonstration data.

    python -m benchmarks adapter_checkpoints --device cpu
"""
import copy
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmseg.core import build_optimizer
from torch import nn

from benchmarks.context import Context
from benchmarks.execution import ROOT
from benchmarks.networks import recipe
from benchmarks.processes import call_in_process
from benchmarks.registry import benchmark
from mmseg_custom.checkpoint.adapters import RoundingLoss
from mmseg_custom.checkpoint.merge import merge
from mmseg_custom.checkpoint.provenance import WeightsSource, set_weights_source
from mmseg_custom.checkpoint.save import save_checkpoint
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.engine.build import build_network, init_heads, master_dtype
from mmseg_custom.engine.config_file import read_config
from mmseg_custom.engine.inference import Predictor
from mmseg_custom.layers.lora import is_adapter
from mmseg_custom.models import InternViT6B
from mmseg_custom.peak_memory import begin_measurement, measured_peak

ALL = ['qkv', 'proj', 'fc1', 'fc2']
SETTINGS = (dict(r=16, targets=ALL), dict(r=16, targets=['qkv', 'proj']),
            dict(r=16, targets=['qkv']), dict(r=16, targets=['proj']), dict(r=8, targets=ALL),
            dict(r=4, targets=ALL))
LOW_MEMORY = 'LowMemoryAdamW'
SHARES = (0.1, 0.01, 0.001, 0.0001)  # of adapters' changes in the weights
IMAGES = 10
DATA = ROOT / 'data/ade_demo/ADEChallengeData2016/images/validation'


@benchmark('Checkpoints of LoRA: bytes, time and memory of merging, and what bfloat16 loses',
           minutes=15, devices=('cpu',), suite=())
def case(run: Context) -> None:
    """Measures sizes, merging, rounding and labels."""
    with tempfile.TemporaryDirectory() as folder:
        for settings in SETTINGS[-1:] if run.tiny else SETTINGS:
            whole, weights = written_bytes(run, folder, settings, 'AdamW')
            low_memory, _ = written_bytes(run, folder, settings, LOW_MEMORY)
            run.row(f'linear probing with adapters, r={settings["r"]}, '
                    f'{" ".join(settings["targets"])}', 'MB', whole / 1e6,
                    {LOW_MEMORY: low_memory / 1e6,
                     'without the state of the optimizer': weights / 1e6})
        _measure_merging(run, folder)
        _compare_labels(run, folder)
    _measure_rounding(run)


def written_bytes(run: Context, folder: str, adapt: dict[str, Any],
                  optimizer: str) -> tuple[int, int]:
    """Writes a checkpoint of the 6B linear recipe with adapters.

    Returns:
        (its bytes, its bytes without the state of the optimizer).
    """
    cfg = recipe('linear_probing', run)
    cfg.model.backbone.adapt = dict(type='lora', alpha=32, **adapt)
    cfg.optimizer.type = optimizer
    model = build_network(cfg, on_meta=True)
    model.decode_head.to_empty(device='cpu')
    file = os.path.join(folder, 'backbone.bin')
    Path(file).write_bytes(b'any')
    frozen = [name for name in model.backbone.state_dict() if not is_adapter(name)]
    set_weights_source(model.backbone, WeightsSource(file, tuple(frozen)))
    apply_precision(model, torch.bfloat16, 'cpu', master_dtype=master_dtype(cfg))
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        nn.init.normal_(parameter.data)
        parameter.grad = torch.randn_like(parameter)
    steps = build_optimizer(model, cfg.optimizer)
    steps.step()
    path, sizes = os.path.join(folder, 'iter_1.pth'), []
    for saved in (steps, None):
        save_checkpoint(model, path, saved, dict(iter=1, config=cfg.pretty_text))
        sizes.append(os.path.getsize(path))
    return sizes[0], sizes[1]


def _measure_merging(run: Context, folder: str) -> None:
    """Adds time and peak memory of merging, beside peft's way."""
    depth, width = (2, 64) if run.tiny else (4, 3200)
    base, path = os.path.join(folder, 'backbone.pth'), os.path.join(folder, 'iter_1.pth')
    write_checkpoint(base, path, depth, width)
    found = {way: call_in_process(merge_by, way, base, path, depth, width)
             for way in ('ours', "peft's")}
    weights = found['ours'][2] / 1e9
    for title, unit, position in (('CPU time', 's', 0), ('peak memory', 'GiB', 1)):
        ours, theirs = (found[way][position] for way in found)
        run.row(f'merging into {weights:.2g} GB of float32 weights: {title}', unit, ours,
                {"peft's way": theirs})


def write_checkpoint(base: str, path: str, depth: int, width: int) -> None:
    """Writes random weights of a backbone, and a checkpoint with random adapters for it."""
    torch.save(_backbone(width, depth).state_dict(), base)
    model = nn.Module()
    model.backbone = _backbone(width, depth, pretrained=base, adapt=dict(type='lora'))
    model.decode_head = nn.Linear(2, 2)
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            nn.init.normal_(parameter.data, std=0.01)
    save_checkpoint(model, path, None, dict(iter=1))


def merge_by(way: str, base: str, path: str, depth: int, width: int) -> tuple[float, int, int]:
    """Merges in this process; returns CPU seconds, peak memory and the bytes that were written."""
    import peft  # noqa: F401 - whose import is not to be measured

    target, start = f'{path}.{len(way)}.pth', time.process_time()
    before = begin_measurement(torch.device('cpu'))
    if way == 'ours':
        merge(path, target)
    else:
        model = nn.Module()
        model.backbone = _backbone(width, depth, pretrained=base,
                                   adapt=dict(type='lora')).float()
        model.load_state_dict(torch.load(path)['state_dict'], strict=False)
        for module in model.modules():
            if hasattr(module, 'get_delta_weight'):
                module.merge()
        torch.save({name: tensor for name, tensor in model.state_dict().items()
                    if not is_adapter(name)}, target)
    return (time.process_time() - start, measured_peak(torch.device('cpu')) - before,
            os.path.getsize(target))


def _backbone(width: int, depth: int, **options: Any) -> InternViT6B:
    return InternViT6B(embed_dim=width, num_heads=max(width // 128, 1), depth=depth,
                       freeze_vit=True, out_indices=[depth - 1], **options)


def _compare_labels(run: Context, folder: str) -> None:
    """Adds how many labels of merged adapters are those of the adapters."""
    images = sorted(DATA.glob('*.jpg'))[:1 if run.tiny else IMAGES]
    if not images:
        return run.missing('labels of merged adapters',
                           'no demonstration data: python tools/make_demo_data.py')
    cfg = read_config(str(ROOT / 'configs/tiny/lora_tiny.py'))
    cfg.model.backbone.pretrained = None
    torch.manual_seed(0)
    model = build_network(cfg)
    init_heads(model)
    for name, parameter in model.named_parameters():
        if is_adapter(name) or 'conv_seg.weight' in name:
            nn.init.normal_(parameter.data, std=0.05)
    one, merged = os.path.join(folder, 'tiny.pth'), os.path.join(folder, 'tiny_merged.pth')
    save_checkpoint(model, one, None, dict(iter=1))
    loss = merge(one, merged)
    for precision in ('fp32', 'bf16'):
        cfg.precision = precision
        plain = copy.deepcopy(cfg)
        plain.model.backbone.pop('adapt')
        with_adapters, without = Predictor(cfg, one, 'cpu'), Predictor(plain, merged, 'cpu')
        equal = []
        for path in images:
            image = mmcv.imread(str(path))[..., ::-1]
            equal.append((with_adapters(image) == without(image)).ravel())
        run.fact(**{f'labels of merged adapters that are those of the adapters, {precision}':
                    float(np.concatenate(equal).mean())})
    run.fact(**{'of what these adapters change, lost in bfloat16': loss.share})


def _measure_rounding(run: Context) -> None:
    """Adds what rounding a merged layer of the real width to bfloat16 loses, by its change."""
    width = 64 if run.tiny else 3200
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(width, width, generator=generator).mul_(0.02).bfloat16().float()
    delta = torch.randn(width, 16, generator=generator) @ torch.randn(16, width,
                                                                      generator=generator)
    for share in SHARES:
        loss = RoundingLoss()
        loss.add(weight, weight + delta * (share * weight.norm() / delta.norm()))
        run.fact(**{f'change of {share:.2%} of the weights: lost in bfloat16': loss.share})
