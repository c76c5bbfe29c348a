"""A window through the exported graphs of a network, beside the network itself.

Blocks have the width of InternViT-300M, and there are few of them: a block costs the same in each.
"""
import os
import tempfile
from collections.abc import Callable

import torch

from benchmarks.context import Context
from benchmarks.networks import random_images
from benchmarks.registry import benchmark
from mmseg_custom.deploy.aot import export_aot
from mmseg_custom.deploy.network import WindowNetwork
from mmseg_custom.deploy.onnx_export import export_onnx
from mmseg_custom.deploy.runtimes import AotRuntime, OnnxRuntime
from mmseg_custom.errors import InputError
from mmseg_custom.models.backbones.intern_vit import InternViT6B
from mmseg_custom.models.decode_heads.fcn_head import FCNHead

DEPTH, TINY_DEPTH = 4, 1
SIDE, TINY_SIDE = 504, 56  # pixels


def network_of(run: Context, dtype: torch.dtype) -> WindowNetwork:
    """Builds blocks of InternViT-300M and a linear head, with the same values in each dtype."""
    width, heads = (32, 2) if run.tiny else (1024, 16)
    depth = TINY_DEPTH if run.tiny else DEPTH
    torch.manual_seed(0)
    backbone = InternViT6B(embed_dim=width, num_heads=heads, depth=depth, img_size=448,
                           qkv_bias=True, qk_normalization=False, norm_type='layer_norm',
                           out_indices=[depth - 1], use_flash_attn=False)
    head = FCNHead(in_channels=width, channels=width, num_classes=150, num_convs=0,
                   concat_input=False, with_norm=True, loss_decode=None)
    return WindowNetwork(backbone.to(dtype), head).to(run.device)


def exported(run: Context, folder: str, title: str, write: Callable[[str], object],
             open_: Callable[[str], Callable], name: str) -> Callable | None:
    """Writes a graph and opens it; None where that cannot be done here."""
    path = os.path.join(folder, name)
    try:
        run.fact(**{f'{title}, agreement': write(path)})
        return open_(path)
    except InputError as error:
        run.missing(title, str(error))
        return None


@benchmark('A window in PyTorch, onnxruntime and AOTInductor: 4 blocks of InternViT-300M',
           minutes=8, suite=(), order=65)
def case(run: Context) -> None:
    """Measures all in turns, on as many threads."""
    side = TINY_SIDE if run.tiny else SIDE
    window = random_images(run.device, 1, 3, side, side)
    whole, half = network_of(run, torch.float32), network_of(run, torch.bfloat16)
    title = f'window of {side}x{side}'
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        found = {
            'onnxruntime, float32': exported(
                run, folder, 'onnxruntime, float32',
                lambda path: export_onnx(whole.cpu(), path, (side, side)),
                lambda path: OnnxRuntime(path, run.device), 'model.onnx'),
            'AOTInductor, float32': exported(
                run, folder, 'AOTInductor, float32',
                lambda path: export_aot(whole, path, (side, side), run.device),
                lambda path: AotRuntime(path, run.device), 'whole.pt2'),
            'AOTInductor, bfloat16': exported(
                run, folder, 'AOTInductor, bfloat16',
                lambda path: export_aot(half, path, (side, side), run.device),
                lambda path: AotRuntime(path, run.device), 'half.pt2')}
        works = {name: runtime for name, runtime in found.items() if runtime is not None}
        works.update({'PyTorch, float32': whole.to(run.device), 'PyTorch, bfloat16': half})
        times = run.measure({name: lambda runtime=runtime: runtime(window)
                             for name, runtime in works.items()})
        for name in found:
            if name in times:
                reference = f'PyTorch, {name.rpartition(" ")[2]}'
                run.row(f'{title}, {name}', 'ms', times[name], {reference: times[reference]})
