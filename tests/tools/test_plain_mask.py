"""Runs of the plain mask decoder, from the command line."""
from pathlib import Path

import pytest
import torch
from helpers.data import CROPS, EIGHT_ITERATIONS, draw_data, write_config
from helpers.runs import assert_same_end, losses, spread, without_the_end

SMALL = CROPS + """
model = dict(
    backbone=dict(embed_dim=32, depth=4, num_heads=2, img_size=56, out_indices=[1, 3]),
    decode_head=dict(in_channels=[32] * 2, in_index=[0, 1], channels=16, num_heads=2,
                     num_queries=10, num_points=64, matching='bipartite',
                     masked_attention=True),
    test_cfg=dict(crop_size=crop, stride=crop, window_batch=4))
""" + EIGHT_ITERATIONS


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('plain_mask')
    return write_config(folder / 'config.py', draw_data(folder), 'plain_mask_tiny', SMALL)


def test_a_resumed_run_ends_as_the_whole_one(run_tool, config, tmp_path):
    def train(folder: str, *arguments: object) -> str:
        code, _, text = run_tool('train.py', config, '--work-dir', tmp_path / folder, *spread(1),
                                 *arguments)
        assert code == 0, text[-3000:]
        return text

    text = train('whole', '--seed', 5)
    assert 'num_queries=10 is less than num_classes=150' in text
    without_the_end(tmp_path / 'whole', tmp_path / 'run')
    assert 'resumed after iteration 4' in train('run', '--auto-resume')
    assert_same_end(tmp_path / 'run', tmp_path / 'whole')
    logged = next(iter(losses(tmp_path / 'whole').values()))
    assert {'decode.loss_cls', 'decode.loss_mask', 'decode.loss_dice', 'decode.acc_seg',
            'loss'} <= set(logged)
    saved = torch.load(tmp_path / 'run/iter_8.pth', weights_only=True)['state_dict']
    # Seven eighths of the training were done before the last iteration: more than the two shares.
    assert saved['decode_head.attn_mask_probs'].tolist() == [0, 0]
    code, _, text = run_tool('test.py', config, tmp_path / 'run/iter_8.pth', '--eval', 'mIoU',
                             '--work-dir', tmp_path / 'test', '--aug-test')
    assert code == 0 and list((tmp_path / 'test').glob('*.json')), text[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize('ranks, engine', [(2, 'ddp'), (2, 'fsdp2')])
def test_several_processes(zygote, config, tmp_path, ranks, engine):
    zygote.train(config, '--work-dir', tmp_path / 'whole', '--seed', 5, *spread(ranks, engine),
                 ranks=ranks)
    work_dir = without_the_end(tmp_path / 'whole', tmp_path / 'run')
    zygote.train(config, '--work-dir', work_dir, '--auto-resume', *spread(ranks, engine),
                 ranks=ranks)
    assert_same_end(work_dir, tmp_path / 'whole')


@pytest.mark.slow
def test_sweep_on_a_feature_cache_with_averages(zygote, config, tmp_path):
    own = tmp_path / 'config.py'
    own.write_text(f"_base_ = {str(config)!r}\n"
                   f"feature_cache = dict(dir={str(tmp_path / 'cache')!r})\n"
                   "custom_hooks = [dict(type='EMAHook', momentum=0.3, warm_up=2)]\n"
                   "workflow = [('train', 4), ('val', 1)]\n")
    zygote.train(own, '--work-dir', tmp_path / 'cached', '--seed', 5)
    sweep = tmp_path / 'sweep.py'
    sweep.write_text(f'_base_ = {str(config)!r}\nsweep = dict(lr=[1e-3, 3e-3])\n')
    zygote.run('tools/sweep.py', sweep, '--work-dir', tmp_path / 'sweep', '--seed', 5)
    ends = [torch.load(path, weights_only=True)['state_dict']['decode_head.queries']
            for path in (tmp_path / 'sweep').glob('*/iter_8.pth')]
    assert len(ends) == 2 and not torch.equal(*ends)
