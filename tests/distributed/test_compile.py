"""engine.compile trains the same, from few graphs."""
import json
from functools import partial

import pytest
import torch
from helpers.commands import ROOT, free_port, run
from mmcv import ConfigDict
from mmseg.models import build_segmentor

from mmseg_custom.distributed.parallelize import Engine, parallelize
from mmseg_custom.distributed.precision import apply_precision

RUNS = dict(
    plain=dict(engine='single', dtype='bfloat16', norm=False, iters=4),
    compiled=dict(engine='single', dtype='bfloat16', norm=False, iters=4, compile=True),
    compiled_fsdp2=dict(engine='fsdp2', dtype='bfloat16', norm=False, iters=4, compile=True),
)


def losses(compile: bool, depth: int = 10) -> list[float]:
    """Of two steps of a network whose blocks all have another drop path."""
    torch.manual_seed(0)
    model = build_segmentor(ConfigDict(
        type='EncoderDecoder',
        backbone=dict(type='InternViT6B', embed_dim=32, depth=depth, num_heads=2, img_size=28,
                      out_indices=[depth - 1], drop_path_rate=0.4),
        decode_head=dict(type='FCNHead', in_channels=32, channels=32, num_convs=0,
                         concat_input=False, num_classes=5)))
    apply_precision(model, torch.bfloat16, 'cpu')
    model = parallelize(model, 'cpu', Engine(compile=compile)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for _ in range(2):
        batch = dict(img=torch.randn(2, 3, 28, 28), img_metas=[{}],
                     gt_semantic_seg=torch.randint(5, (2, 1, 28, 28)))
        optimizer.zero_grad()
        found.append(model.train_step(batch, optimizer)['loss'])
        found[-1].backward()
        optimizer.step()
    return [loss.item() for loss in found]


def test_few_graphs_serve_all_blocks(monkeypatch):
    """Torch gives up compiling a function after eight graphs of it."""
    from torch._dynamo.utils import counters
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend='eager'))
    torch._dynamo.reset()
    counters.clear()
    assert losses(compile=True) == losses(compile=False)
    assert 0 < counters['stats']['unique_graphs'] <= 8


@pytest.mark.slow
def test_compiled_runs_train_alike(tmp_path):
    run('python', 'tests/helpers/traces.py', tmp_path, free_port(),
        *(f'{name}={json.dumps(options)}' for name, options in RUNS.items()),
        PYTHONPATH=f'{ROOT}:{ROOT / "tests"}', timeout=900)
    plain, *compiled = (torch.load(tmp_path / f'{name}.pth') for name in RUNS)
    for trace in compiled:
        torch.testing.assert_close(trace['losses'], plain['losses'], rtol=2e-2, atol=0)
        for name, tensor in plain['state_dict'].items():
            torch.testing.assert_close(trace['state_dict'][name], tensor, rtol=0, atol=5e-3)
