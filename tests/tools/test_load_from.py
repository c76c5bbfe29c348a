"""``--load-from`` a segmentor that was trained on other classes, or with other heads."""
import pytest
import torch
from helpers.data import CROPS, draw_data, write_config
from mmcv import Config

from mmseg_custom.checkpoint import save_checkpoint
from mmseg_custom.doctor.weights import check_weights
from mmseg_custom.engine.build import build_network, init_heads
from mmseg_custom.engine.config import load_config

PARTS = ['decode_head.conv_seg', 'auxiliary_head.conv_seg']
OPTIONS = CROPS + """
model = dict(backbone=dict(embed_dim=32, depth=4, num_heads=2, img_size=56, pretrain_size=56,
                           out_indices=[0, 1, 2, 3]),
             decode_head=dict(in_channels=[32] * 4, channels=8),
             auxiliary_head=dict(in_channels=32, channels=8))
data['samples_per_gpu'] = 2
data['workers_per_gpu'] = 0
runner = dict(max_iters=1)
optimizer = dict(lr=0.0)
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('load_from')
    return write_config(folder / 'config.py', draw_data(folder, train=2, val=1),
                        'head_tuning_tiny', OPTIONS)


@pytest.fixture(scope='module')
def pretrained(config):
    """A classic checkpoint of the same network with 7 classes."""
    cfg = load_config(str(config))
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.num_classes = 7
    model = build_network(cfg)
    init_heads(model)
    path = str(config.with_name('pretrained.pth'))
    save_checkpoint(model, path, meta=dict(CLASSES=list('abcdefg')))
    return path


def train(run_tool, config, *arguments: object) -> tuple[int, str]:
    code, _, stderr = run_tool('train.py', config, '--no-validate', '--seed', 1, *arguments)
    return code, stderr.strip().splitlines()[-1]


def test_the_refusal_names_the_way_out(run_tool, config, pretrained, tmp_path):
    code, last = train(run_tool, config, '--work-dir', tmp_path, '--load-from', pretrained)
    assert code == 1 and 'decode_head.conv_seg.weight has shape (7, 8, 1, 1)' in last
    assert 'By its metadata it is of a network of 7 classes; the config builds InternViT' in last
    assert f'give --load-from-without {" ".join(PARTS)}' in last
    finding, = [one for one in check_weights(Config(dict(
        load_config(str(config)), load_from=pretrained)))[0] if 'conv_seg' in one.message]
    assert f'--load-from-without {" ".join(PARTS)}' in finding.message


def test_parts_start_anew_and_the_rest_is_loaded(run_tool, config, pretrained, tmp_path):
    code, last = train(run_tool, config, '--work-dir', tmp_path, '--load-from', pretrained,
                       '--load-from-without', *PARTS)
    assert code == 0, last
    before = torch.load(pretrained)['state_dict']
    after = torch.load(tmp_path / 'iter_1.pth')['state_dict']
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        if name.rpartition('.')[0] in PARTS:
            assert tensor.shape[0] == 150
            if name.endswith('weight'):
                assert 0 < tensor.abs().mean() < 1 and torch.isfinite(tensor).all()
        elif 'running_' not in name and 'num_batches' not in name:
            assert torch.equal(tensor.float(), before[name].float()), name
    findings = check_weights(Config(dict(load_config(str(config)), load_from=pretrained,
                                         load_from_without=PARTS)))[0]
    assert not findings


@pytest.mark.parametrize('parts, message', [
    (['decode_heat'], "was to be left out (did you mean 'decode_head'?)"),
    (['decode_head'], '--load-from-without decode_head auxiliary_head.conv_seg')])
def test_wrong_parts(run_tool, config, pretrained, tmp_path, parts, message):
    code, last = train(run_tool, config, '--work-dir', tmp_path, '--cfg-options',
                       f'load_from={pretrained}', f'load_from_without={",".join(parts)}')
    assert code == 1 and message in last


def test_parts_of_nothing(run_tool, config, tmp_path):
    code, last = train(run_tool, config, '--work-dir', tmp_path, '--load-from-without', *PARTS)
    assert code == 1 and 'without load_from: give --load-from too' in last
