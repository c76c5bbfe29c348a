"""What compiling the blocks, and CUDA graphs, change: eager against compiled, in one run.

Two blocks of the width of InternViT-6B and four of InternViT-300M, without gradients (frozen
blocks, evaluation) and with a backward pass (trained blocks); one crop of 504x504 on the CPU, two
on a GPU. CUDA graphs of frozen blocks are measured where the launches of many small kernels count:
all 24 blocks of the 300M network, two crops.

Compiling takes seconds to minutes, which the notes give; the next run takes the graphs from the
cache.
"""
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.cases.blocks import through
from benchmarks.context import Context, at_least
from benchmarks.networks import fill
from benchmarks.registry import benchmark
from mmseg_custom.distributed.compiler import compile_blocks, missing_for
from mmseg_custom.distributed.cuda_graphs import EAGER_RUNS, GraphedBlocks
from mmseg_custom.distributed.precision import is_fast_on_cpu
from mmseg_custom.layers.block import Block

NETWORKS = {
    '6B': dict(depth=2, dim=3200, num_heads=25),
    '300M': dict(depth=4, dim=1024, num_heads=16, qkv_bias=True, qk_normalization=False,
                 norm_type='layer_norm'),
}
TINY = dict(depth=2, dim=64, num_heads=2)
TOKENS = 1 + 36 ** 2  # of a crop of 504x504
TOLERANCE = 2e-2  # of outputs in bfloat16, relative to the largest


def blocks_of(run: Context, name: str, **changes: int) -> tuple[nn.ModuleList, Tensor]:
    """Returns blocks of a network with random weights, and tokens for them."""
    options = {**NETWORKS[name], **(TINY if run.tiny else {}), **changes}
    depth = options.pop('depth')
    bf16 = run.on_gpu or is_fast_on_cpu(torch.bfloat16)
    with torch.device('meta'):
        blocks = nn.ModuleList(Block(**options, use_flash_attn=True) for _ in range(depth))
    blocks = fill(blocks.to(torch.bfloat16 if bf16 else torch.float32), run.device).eval()
    tokens = torch.randn(2 if run.on_gpu else 1, 50 if run.tiny else TOKENS, options['dim'],
                         device=run.device, dtype=blocks[0].norm1.weight.dtype)
    return blocks, tokens


def training(blocks: nn.ModuleList, tokens: Tensor) -> Callable[[], Tensor]:
    """Returns a call that runs tokens through blocks and back, and returns their gradient."""
    tokens = tokens.clone().requires_grad_()

    def call() -> Tensor:
        blocks.zero_grad()
        x = tokens
        for block in blocks:
            x = block(x)
        grad, = torch.autograd.grad(x.float().square().mean(), tokens)
        return grad
    return call


def compiled(blocks: nn.ModuleList, call: Callable[[], Tensor], device: str
             ) -> tuple[Callable[[], Tensor], float]:
    """Compiles blocks in place; returns the call, and the seconds that this took."""
    start = time.perf_counter()
    compile_blocks(list(blocks), device)
    for _ in range(3):  # without gradients the third run of a shape is compiled
        call()
    return call, time.perf_counter() - start


def compare(run: Context, name: str, way: str, make: Callable) -> None:
    """Measures one network in one way: eager and compiled, in turns, and how far they differ."""
    (plain, tokens), (other, _) = blocks_of(run, name), blocks_of(run, name)
    torch._dynamo.reset()
    eager = make(plain, tokens)
    work, seconds = compiled(other, make(other, tokens), run.device)
    difference = ((work() - eager()).abs().max() / eager().abs().max()).item()
    times = run.measure({'ours': work, 'eager': eager}, warm_up=1)
    run.row(f'{len(plain)} blocks of {name}, {way}', 'ms', times['ours'], {'eager': times['eager']},
            targets=[at_least('eager', 1.0)],
            notes=f'compiled in {seconds:.0f} s, largest difference {difference:.1e} of the '
                  f'largest value, in {str(tokens.dtype).removeprefix("torch.")}')
    if difference > TOLERANCE:
        run.wrong(f'{name}, {way}: compiled blocks differ by {difference:.1e}')


def compare_graphs(run: Context) -> None:
    """Measures frozen blocks of the 300M network launched one by one, and as one CUDA graph."""
    blocks, tokens = blocks_of(run, '300M', **({} if run.tiny else dict(depth=24)))
    graphs, eager = GraphedBlocks(), through(blocks, tokens)

    def run_blocks(x: Tensor) -> list[Tensor]:
        for block in blocks:
            x = block(x)
        return [x]

    @torch.no_grad()
    def graphed() -> Tensor:
        return graphs(run_blocks, tokens)[0]

    for _ in range(EAGER_RUNS + 1):
        graphed()
    times = run.measure({'ours': graphed, 'eager': eager})
    run.row(f'{len(blocks)} blocks of 300M, inference, one CUDA graph', 'ms', times['ours'],
            {'eager': times['eager']}, targets=[at_least('eager', 1.0)])


@benchmark('Compiled blocks and CUDA graphs, against eager blocks', minutes=5, order=35)
def case(run: Context) -> None:
    """Measures each network without and with gradients, then CUDA graphs."""
    if (missing := missing_for(run.device)) is not None:
        run.skip(missing)
    for name in NETWORKS:
        compare(run, name, 'inference', through)
        compare(run, name, 'forward and backward', training)
    if run.on_gpu:
        compare_graphs(run)
