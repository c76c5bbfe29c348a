"""ViT-Adapter with the tools: trained, resumed, tested in windows, by mmseg's segmentor too."""
import json
import shutil

import pytest
import torch
from helpers.data import write_config
from helpers.tiny_networks import same

from mmseg_custom.models import InternViT6B

SMALL = """
model = dict(
    type='{segmentor}',
    backbone=dict(pretrained='{file}', embed_dim=32, depth=4, num_heads=2, deform_num_heads=2,
                  init_values=0.1, interaction_indexes=[[0, 0], [1, 1], [2, 2], [3, 3]]),
    decode_head=dict(in_channels=[32] * 4, channels=16),
    auxiliary_head=dict(in_channels=32, channels=16))
precision = 'fp32'
"""


@pytest.fixture
def file(tmp_path) -> str:
    torch.manual_seed(0)
    path = str(tmp_path / 'weights.pth')
    torch.save(InternViT6B(embed_dim=32, num_heads=2, depth=4, img_size=56,
                           out_indices=[3]).state_dict(), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize('segmentor', ['InternViTSegmentor', 'EncoderDecoder'])
def test_a_run_is_resumed_exactly_and_tested(shared_data, tmp_path, run_tool, file, segmentor):
    config = write_config(tmp_path / 'config.py', shared_data, 'vit_adapter_tiny',
                          SMALL.format(file=file, segmentor=segmentor))
    whole, halves = tmp_path / 'whole', tmp_path / 'halves'
    common = ['--device', 'cpu', '--seed', '1']
    code, _, error = run_tool('train.py', config, '--work-dir', whole, *common)
    assert code == 0, error
    halves.mkdir()
    shutil.copy(whole / 'iter_2.pth', halves)  # as a run that was killed after it
    (halves / 'latest.pth').symlink_to('iter_2.pth')
    code, _, error = run_tool('train.py', config, '--work-dir', halves, *common, '--auto-resume')
    assert code == 0, error
    one, other = (torch.load(folder / 'iter_4.pth')['state_dict'] for folder in (whole, halves))
    assert not any(name.startswith(('backbone.blocks', 'backbone.pos')) for name in one)
    first = torch.load(whole / 'iter_2.pth')['state_dict']
    assert all((first[name] != one[name]).any() for name in one if name.endswith('.gamma'))
    assert same(one, other) and 'backbone.spm.fc1.weight' in one
    if segmentor == 'InternViTSegmentor':
        code, _, error = run_tool('test.py', config, whole / 'iter_4.pth', '--eval', 'mIoU',
                                  '--work-dir', tmp_path / 'test', '--device', 'cpu')
        assert code == 0, error
        found = json.loads(next((tmp_path / 'test').glob('eval_*.json')).read_text())
        best = json.loads((whole / 'best.json').read_text())
        assert found['metric']['mIoU'] == pytest.approx(best['hook_msgs']['best_score'], abs=1e-6)
