"""Runs that are compared: their config, and what must be equal when they end."""
import json
import operator
import shutil
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers.data import CROPS, SMALL_LINEAR, draw_data, write_config
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from mmseg_custom.models.backbones.intern_vit import InternViT6B

ITERATIONS = 8
# The smallest run with dropout, drop path, SyncBN, augmentation and layer decay. The window batch
# size is fixed: on a GPU the first one after a start runs alone, and may round differently.
SMALL = CROPS + """
model = dict(
    backbone=dict(embed_dim=32, depth=4, num_heads=2, img_size=56, pretrain_size=56,
                  out_indices=[0, 1, 2, 3], drop_path_rate=0.3, freeze_vit=False),
    decode_head=dict(in_channels=[32] * 4, channels=8, dropout_ratio=0.3),
    auxiliary_head=dict(in_channels=32, channels=8, dropout_ratio=0.3),
    test_cfg=dict(crop_size=crop, stride=crop, window_batch=4))
data['samples_per_gpu'] = 2
data['workers_per_gpu'] = 1
optimizer = dict(paramwise_cfg=dict(num_layers=4, layer_decay_rate=0.95))
runner = dict(max_iters=8)
checkpoint_config = dict(interval=2, max_keep_ckpts=3)
evaluation = dict(interval=4)
"""
# What makes it a run that trains a part of the blocks.
PARTLY = dict(
    lora="model['backbone'].update(adapt=dict(type='lora', r=4, dropout=0.3))\n",
    dora="model['backbone'].update(adapt=dict(type='lora', r=4, use_dora=True, blocks=[1, 3]))\n",
    last_blocks="model['backbone'].update(train_last=2)\n",
    norms="model['backbone'].update(train_last=1, train_norms=True)\n")


def skip_without_peft(part: str) -> None:
    """Skips a test of adapters where there is no peft, which no GPU machine has by itself.

    It is not imported: that would ask for GPUs, in a process that is to be forked.

    Args:
        part: Key of ``PARTLY``, or a similar name.
    """
    if part in ('lora', 'dora') and find_spec('peft') is None:
        pytest.skip('peft is not installed')


def write_small_config(folder: Path, extra: str = '') -> Path:
    """A config of 8 iterations, with checkpoints every 2 and evaluations every 4, and its data."""
    return write_config(folder / 'config.py', draw_data(folder, train=5, val=2),
                        'head_tuning_tiny', SMALL + extra)


def write_small_linear(folder: Path) -> Path:
    """A config of a linear head on a backbone of 2 blocks, whose weights are in a file."""
    backbone = write_backbone(folder, depth=2)
    return write_config(folder / 'config.py', draw_data(folder, train=4, val=1), extra=SMALL_LINEAR
                        + f"model['backbone']['pretrained'] = '{backbone}'\n")


def write_backbone(folder: Path, depth: int = 4) -> Path:
    """A file with weights of the backbone of ``SMALL``, or of one of other depth."""
    torch.manual_seed(0)
    torch.save(InternViT6B(embed_dim=32, depth=depth, num_heads=2, img_size=56,
                           out_indices=[depth - 1]).state_dict(), folder / 'backbone.pth')
    return folder / 'backbone.pth'


def without_the_end(whole: Path, work_dir: Path, last: int = 4) -> Path:
    """Copies a work dir as it was when the run was killed after the checkpoint of ``last``."""
    shutil.copytree(whole, work_dir, symlinks=True)
    for path in [*work_dir.glob('iter_*'), *work_dir.glob('best*')]:
        if path.stem.startswith('best') or int(path.stem.removeprefix('iter_')) > last:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return work_dir


def spread(ranks: int, engine: str = 'ddp') -> list[str]:
    """The options for a step of 4 images on any number of ranks."""
    return ['--engine', engine if ranks > 1 else 'single', '--total-batch', '4']


def losses(work_dir: Path) -> dict[int, dict]:
    """Iteration -> what was logged for it last, without times."""
    found = {}
    for path in sorted(work_dir.glob('*.log.json')):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if entry.get('mode') == 'train':
                found[entry['iter']] = {key: value for key, value in entry.items()
                                        if 'time' not in key and key != 'memory'}
    return found


def final_state(work_dir: Path) -> dict:
    """Weights, the optimizer's state and its groups after the last iteration, by name."""
    path = work_dir / f'iter_{ITERATIONS}.dcp'
    if path.exists():
        return sharded_state(path)
    state = torch.load(path.with_suffix('.pth'), weights_only=True)
    return {**state['state_dict'], 'groups': state['optimizer']['param_groups'],
            **{f'{index}.{name}': value for index, values in state['optimizer']['state'].items()
               for name, value in values.items()}}


def sharded_state(path: Path) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        dcp_to_torch_save(path, f'{folder}/whole.pth')
        return torch.load(f'{folder}/whole.pth', weights_only=True)


def assert_same_end(work_dir: Path, expected: Path, killed: bool = False) -> None:
    """Compares weights, optimizer, logged losses and the best score of two runs, bit for bit.

    A run that was killed may lack the line of an iteration whose checkpoint it had just written.
    """
    end, expected_end = final_state(work_dir), final_state(expected)
    assert end.keys() == expected_end.keys() and len(end) > 100
    for name, value in expected_end.items():
        same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
        assert same(end[name], value), name
    found, logged = losses(work_dir), losses(expected)
    assert found == {n: line for n, line in logged.items() if n in found or not killed}
    assert ITERATIONS in found or killed
    records = [json.loads((folder / 'best.json').read_text()) for folder in (work_dir, expected)]
    for record, folder in zip(records, (work_dir, expected)):
        best = record['hook_msgs']['best_ckpt']
        assert Path(best).parent == folder and Path(best).exists()
        record['hook_msgs'] = {'score': record['hook_msgs']['best_score'], 'name': Path(best).name}
    assert records[0] == records[1]


def wait_for(path: Path, text: str = '', seconds: float = 240) -> None:
    """Waits for a file, and for a text in it."""
    end = time.monotonic() + seconds
    while not path.exists() or text and text not in path.read_text():
        assert time.monotonic() < end, f'{path} {text} has not come'
        time.sleep(0.02)
