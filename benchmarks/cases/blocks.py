"""The rate of the blocks: two of the real width, in the dtype that the precision policy picks.

One crop of 504x504 on the CPU, two on a GPU, without gradients. The limit is the time that the
blocks' operations take at the rate of a product of the MLP's shape in the same dtype. References
with the same weights' shapes: transformers' InternVLVisionModel with PyTorch's attention, and the
original's way.
"""
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import original
from benchmarks.context import Context, at_least
from benchmarks.networks import block_flops, crop_of, fill, matmul, recipe
from benchmarks.registry import benchmark
from benchmarks.results import LIMIT
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.engine.build import build_network, compute_dtype

DEPTH = 2
TRANSFORMERS, ORIGINAL = "transformers' class", "the original's way"


def layers_of_transformers(width: int, heads: int, dtype: torch.dtype,
                           device: str) -> nn.ModuleList:
    """Builds the blocks of transformers' class with random weights.

    Raises:
        ImportError: If transformers is not installed, or has no such class.
    """
    from transformers import InternVLVisionConfig, InternVLVisionModel
    config = InternVLVisionConfig(
        hidden_size=width, num_hidden_layers=DEPTH, num_attention_heads=heads,
        intermediate_size=4 * width, use_qk_norm=True, norm_type='rms_norm', image_size=(504, 504),
        patch_size=(14, 14), layer_scale_init_value=0.1, attn_implementation='sdpa')
    with torch.device('meta'):
        model = InternVLVisionModel(config)
    return fill(model.to(dtype), device).eval().encoder.layer


def through(blocks: nn.ModuleList, tokens: Tensor) -> Callable[[], Tensor]:
    """Returns a call that runs tokens through blocks."""
    @torch.no_grad()
    def call() -> Tensor:
        x = tokens
        for block in blocks:
            x = block(x)
        return x
    return call


def through_original(blocks: nn.ModuleList, tokens: Tensor) -> Callable[[], Tensor]:
    """Returns a call that runs tokens through blocks in the original's way."""
    @torch.no_grad()
    def call() -> Tensor:
        x = tokens
        for block in blocks:
            x = original.run_block(block, x)
        return x
    return call


@benchmark('Blocks of the real width, against the matrix product, transformers and the original',
           minutes=4, order=11)
def case(run: Context) -> None:
    """Measures the blocks, the references and the product in turns."""
    cfg, crops = recipe('linear_probing', run), 2 if run.on_gpu else 1
    cfg.model.backbone.update(depth=DEPTH, out_indices=[DEPTH - 1])
    model = build_network(cfg, on_meta=True, trained=False).requires_grad_(False)
    apply_precision(model, compute_dtype(cfg, model), run.device)
    backbone = fill(model, run.device).eval().backbone
    height, width = crop_of(cfg)
    dim, dtype = backbone.embed_dim, backbone.blocks[0].attn.qkv.weight.dtype
    tokens = 1 + (height // 14) * (width // 14)
    x = torch.randn(crops, tokens, dim, device=run.device, dtype=dtype)
    product, flops = matmul(run, dtype, crops * tokens)
    work = {'ours': through(backbone.blocks, x), 'product': product,
            ORIGINAL: through_original(backbone.blocks, x)}
    try:
        layers = layers_of_transformers(dim, backbone.blocks[0].attn.num_heads, dtype, run.device)
        work[TRANSFORMERS] = through(layers, x)
    except ImportError as error:
        run.missing(f'two blocks, against {TRANSFORMERS}', f'transformers: {error}')
    times = run.measure(work, warm_up=1)
    rate = flops / statistics.median(times['product'])
    references = {name: times[name] for name in (TRANSFORMERS, ORIGINAL) if name in times}
    run.row(f'two blocks, {crops} crop(s)', 'ms', times['ours'], references,
            limit=block_flops(crops, cfg, DEPTH) / rate,
            targets=[at_least(LIMIT, 0.85), *([at_least(TRANSFORMERS, 1.0)]
                                              if TRANSFORMERS in times else [])],
            notes=f'in {str(dtype).removeprefix("torch.")}')
    run.fact(dtype=str(dtype), matmul_tflops=round(rate / 1e12, 3))
