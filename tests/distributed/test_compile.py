"""engine.compile trains the same, from few graphs."""
from functools import partial

import pytest
import torch
import torch.distributed as dist
from mmcv import ConfigDict
from mmseg.models import build_segmentor

from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.parallelize import parallelize
from mmseg_custom.distributed.precision import apply_precision


def losses(engine: Engine, depth: int, steps: int, dtype: torch.dtype = torch.bfloat16,
           ) -> list[float]:
    """Of a network whose blocks all have another drop path."""
    torch.manual_seed(0)
    model = build_segmentor(ConfigDict(
        type='EncoderDecoder',
        backbone=dict(type='InternViT6B', embed_dim=32, depth=depth, num_heads=2, img_size=28,
                      out_indices=[depth - 1], drop_path_rate=0.4),
        decode_head=dict(type='FCNHead', in_channels=32, channels=32, num_convs=0,
                         concat_input=False, num_classes=5)))
    apply_precision(model, dtype, 'cpu', store=engine.type != 'fsdp2')
    model = parallelize(model, 'cpu', engine).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for _ in range(steps):
        batch = dict(img=torch.randn(2, 3, 28, 28), img_metas=[{}],
                     gt_semantic_seg=torch.randint(5, (2, 1, 28, 28)))
        optimizer.zero_grad()
        found.append(model.train_step(batch, optimizer)['loss'])
        found[-1].backward()
        optimizer.step()
    return [loss.item() for loss in found]


@pytest.fixture
def counters():
    """What torch has compiled."""
    from torch._dynamo.utils import counters
    torch._dynamo.reset()
    counters.clear()
    return counters


def test_few_graphs_serve_all_blocks(monkeypatch, counters):
    """Torch gives up compiling a function after eight graphs of it."""
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend='aot_eager'))
    torch.testing.assert_close(losses(Engine(compile=True), 10, 2), losses(Engine(), 10, 2))
    assert 0 < counters['stats']['unique_graphs'] <= 8


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['single', 'fsdp2'])
def test_compiled_blocks_train_alike(counters, free_port, kind):
    """Machine code by Inductor, forwards and backwards."""
    dist.init_process_group('gloo', f'tcp://127.0.0.1:{free_port}', rank=0, world_size=1)
    try:
        with torch._inductor.config.patch(compile_threads=1):
            compiled = losses(Engine(kind, compile=True), 2, 3)
        graphs = counters['stats']['unique_graphs']
        plain = losses(Engine(kind), 2, 3)
    finally:
        dist.destroy_process_group()
    assert graphs > 0 and compiled[0] != compiled[-1]
    torch.testing.assert_close(compiled, plain, rtol=2e-2, atol=0)
