"""Runs whose queries pass the last blocks of the backbone (EoMT), from the command line."""
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mmseg
import pytest
import torch
from helpers.data import CROPS, EIGHT_ITERATIONS, draw_data, write_config
from helpers.runs import assert_same_end, losses, spread, without_the_end, write_backbone

SMALL = CROPS + """
model = dict(
    backbone=dict(embed_dim=32, depth=4, num_heads=2, img_size=56, pretrain_size=56,
                  out_indices=[3], drop_path_rate=0.3),
    decode_head=dict(in_channels=32, channels=16, num_queries=12, num_blocks=2, num_points=64,
                     matching='bipartite', masked_attention=True),
    test_cfg=dict(crop_size=crop, stride=crop, window_batch=4))
""" + EIGHT_ITERATIONS
KINDS = dict(
    full='', last_blocks="model['backbone'].update(train_last=2)\n",
    lora="model['backbone'].update(adapt=dict(type='lora', r=4, dropout=0.3))\n")


def write_eomt_config(folder: Path, kind: str) -> Path:
    extra = SMALL + KINDS[kind]
    if kind != 'full':
        extra += f"model['backbone'].update(pretrained='{write_backbone(folder)}')\n"
    return write_config(folder / 'config.py', draw_data(folder, train=5, val=2), 'eomt_tiny', extra)


@pytest.fixture(scope='module')
def train(zygote) -> Callable[..., str]:
    """Runs tools/train.py: (config, work_dir, ranks, engine, *arguments) -> what it printed."""
    for module in ('peft', 'transformers.models.mask2former.modeling_mask2former'):
        zygote.import_once(module)

    def train(config: Path, work_dir: Path, ranks: int, engine: str, *arguments: object) -> str:
        return zygote.train(config, '--work-dir', work_dir, *spread(ranks, engine), *arguments,
                            ranks=ranks)
    return train


@pytest.mark.slow
@pytest.mark.parametrize('kind, ranks, engine', [
    ('full', 1, 'single'), ('last_blocks', 1, 'single'), ('lora', 1, 'single'), ('full', 2, 'ddp'),
    ('lora', 2, 'ddp'), ('full', 2, 'fsdp2'), ('last_blocks', 2, 'fsdp2')])
def test_resumed_runs_end_as_whole_ones(zygote, train, tmp_path, kind, ranks, engine):
    config = write_eomt_config(tmp_path, kind)
    train(config, tmp_path / 'whole', ranks, engine, '--seed', 5)
    without_the_end(tmp_path / 'whole', tmp_path / 'run')
    text = train(config, tmp_path / 'run', ranks, engine, '--auto-resume')
    assert 'resumed after iteration 4' in text
    assert_same_end(tmp_path / 'run', tmp_path / 'whole')
    logged = losses(tmp_path / 'run')[8]
    assert {'decode.loss_cls', 'decode.loss_mask', 'decode.loss_dice'} <= logged.keys()
    checkpoint = next((tmp_path / 'run').glob('iter_8.*'))
    zygote.run('tools/test.py', config, checkpoint, '--eval', 'mIoU', '--work-dir',
               tmp_path / 'test')
    metric = json.loads(next((tmp_path / 'test').glob('eval_*.json')).read_text())['metric']
    log = [json.loads(line) for line in next((tmp_path / 'run').glob('*.log.json')).open()]
    assert [line['mIoU'] for line in log if line.get('mode') == 'val'][-1] == pytest.approx(
        metric['mIoU'], abs=1e-4)


@pytest.mark.slow
def test_a_feature_cache_changes_nothing(train, tmp_path):
    config = write_eomt_config(tmp_path, 'last_blocks')
    options = ['--seed', 5, '--no-validate', '--cfg-options', 'precision=fp32',
               'runner.max_iters=2']  # the views of the cache
    train(config, tmp_path / 'plain', 1, 'single', *options)
    train(config, tmp_path / 'cached', 1, 'single', *options,
          f'feature_cache.dir={tmp_path / "cache"}', 'feature_cache.views=2',
          'feature_cache.seed=5', 'feature_cache.dtype=fp32')
    found, expected = (losses(tmp_path / name) for name in ('cached', 'plain'))
    assert found == expected and len(found) == 2


@pytest.mark.slow
def test_mmsegs_own_tools(zygote, train, tmp_path):
    tools = Path(mmseg.__file__).parent / '.mim/tools'
    if not tools.exists():
        pytest.skip('this mmseg has no tools')
    config = write_eomt_config(tmp_path, 'full')
    zygote.run(tools / 'train.py', config, '--work-dir', tmp_path / 'run', '--seed', 0)
    saved = torch.load(tmp_path / 'run/latest.pth', weights_only=True)
    assert saved['meta']['iter'] == 8
    assert not saved['state_dict']['decode_head.attn_mask_probs'].any()  # they started at 1
    text = zygote.run(tools / 'test.py', config, tmp_path / 'run/latest.pth', '--eval', 'mIoU',
                      '--work-dir', tmp_path / 'test')
    assert 'mIoU' in text
    shutil.rmtree(tmp_path / 'run')
