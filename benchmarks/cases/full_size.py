"""The 5.9-billion-parameter backbone on this machine: memory to build it, time of one crop.

Builds the backbone of the linear-probing recipe with random weights in bfloat16 and runs one
504x504 crop through it, and through backbone and head. The limit is the time of its operations at
the rate of a matrix product of the MLP's shape in the same run.
"""
import statistics
import time

import torch
from mmseg.models import build_segmentor

from benchmarks.context import Context
from benchmarks.networks import block_flops, crop_of, matmul, random_images, recipe
from benchmarks.registry import benchmark
from mmseg_custom.host_memory import free_host_memory
from mmseg_custom.peak_memory import process_peak

CPU_MEMORY = 16 * 2 ** 30  # bytes that must be free


@benchmark('The whole backbone: memory to build it, and a crop through its 45 blocks', minutes=12,
           suite=())
def case(run: Context) -> None:
    """Builds, runs and measures."""
    if not run.tiny and (free := free_host_memory()) < CPU_MEMORY:
        run.skip(f'it takes 13 GB of memory, and {free / 1e9:.0f} are free')
    cfg = recipe('linear_probing', run)
    before, start = process_peak('cpu'), time.perf_counter()
    with torch.device(run.device):
        model = build_segmentor(cfg.model).eval()
    run.fact(seconds_to_build=round(time.perf_counter() - start, 2))
    weights = sum(parameter.nbytes for parameter in model.parameters())
    if not run.on_gpu:
        run.row('peak memory to build it', 'GB', process_peak('cpu') - before,
                {'the bytes of the weights': weights})
    backbone, crop = model.backbone, crop_of(cfg)
    image = random_images(run.device, 1, 3, *crop)
    product, flops = matmul(run, backbone.blocks[0].attn.qkv.weight.dtype, tokens=1297)
    with torch.no_grad():
        times = run.measure({'backbone': lambda: backbone(image), 'product': product,
                             'crop': lambda: model.encode_decode(image, None)},
                            rounds=3, warm_up=1)
    rate = flops / statistics.median(times['product'])
    blocks = max(backbone.out_indices) + 1
    run.row('a crop through the blocks that are read', 's', times['backbone'],
            limit=block_flops(1, cfg, blocks) / rate)
    run.row('a crop, from pixels to logits', 's', times['crop'])
    run.fact(parameters=sum(p.numel() for p in backbone.parameters()), blocks_run=blocks,
             matmul_gflops=round(rate / 1e9, 1))
