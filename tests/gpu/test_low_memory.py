"""LowMemoryAdamW on a GPU, where its step is compiled, and its checkpoint."""
import shutil
from pathlib import Path

import pytest
from helpers.data import CROPS, draw_data, write_config
from helpers.runs import assert_same_end, spread

from mmseg_custom.distributed.compiler import require_compiler
from mmseg_custom.errors import InputError

pytestmark = pytest.mark.gpu

# Each shape of a weight is compiled once, which takes a second or more: a linear head, not UPerNet.
# Weights of 64x64 values and more are quantised.
FEW_SHAPES = CROPS + """
model = dict(
    backbone=dict(embed_dim=64, depth=4, num_heads=2, img_size=56, pretrain_size=56,
                  out_indices=[3], drop_path_rate=0.3, freeze_vit=False),
    decode_head=dict(in_channels=64, channels=64),
    test_cfg=dict(crop_size=crop, stride=crop, window_batch=4))
data['samples_per_gpu'] = 2
optimizer = dict(type='LowMemoryAdamW', state='{state}', paramwise_cfg=dict(num_layers=4))
runner = dict(max_iters=8)
checkpoint_config = dict(interval=4)
evaluation = dict(interval=8)
"""


@pytest.fixture
def config(tmp_path):
    def config(state: str) -> Path:
        return write_config(tmp_path / 'config.py', draw_data(tmp_path, train=5, val=2),
                            'few_shot_tiny', FEW_SHAPES.replace('{state}', state))
    return config


@pytest.mark.parametrize('state', ['8bit', 'bf16'])
def test_resumed(train, device, config, tmp_path, state):
    pytest.importorskip('torchao')
    if device == 'cuda':
        try:
            require_compiler('optimizer.type')
        except InputError as error:
            pytest.skip(str(error))
    options = [config(state), '--deterministic', *spread(1)]
    train(*options, '--work-dir', tmp_path / 'whole', '--seed', 5)
    shutil.copytree(tmp_path / 'whole', tmp_path / 'again', symlinks=True)
    for path in [*tmp_path.glob('again/iter_8.*'), *tmp_path.glob('again/best*')]:
        path.unlink()
    text = train(*options, '--work-dir', tmp_path / 'again', '--auto-resume')
    assert 'resumed after iteration 4' in text
    assert_same_end(tmp_path / 'again', tmp_path / 'whole')
