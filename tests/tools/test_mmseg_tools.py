"""mmseg's own tools, as its wheel holds them, on a config of ours."""
import sys
from pathlib import Path

import mmcv
import mmseg
import pytest
import torch
from helpers.commands import run
from helpers.data import draw_data, write_config

TOOLS = Path(mmseg.__file__).parent / '.mim/tools'
pytestmark = pytest.mark.skipif(
    not any(finder.find_spec('mmcv._ext', mmcv.__path__) for finder in sys.meta_path),
    reason='mmcv._ext is not there: install the package (make setup, or pip install .)')


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A folder with a config, and what mmseg's train.py makes of it.

    It runs in a fresh process, which shows that a config is all that mmseg's tools need. The other
    tools run in forks of a process that has imported the package.
    """
    folder = tmp_path_factory.mktemp('mmseg_tools')
    write_config(folder / 'config.py', draw_data(folder))
    run('python', TOOLS / 'train.py', folder / 'config.py', '--work-dir', folder / 'run', '--seed',
        0)
    return folder


@pytest.fixture
def tool(zygote):
    """Runs a tool of mmseg: (name, *arguments) -> what it prints."""
    return lambda name, *arguments, **options: zygote.run(TOOLS / name, *arguments, **options)


def test_train(folder):
    checkpoint = torch.load(folder / 'run/latest.pth', weights_only=True)
    assert checkpoint['meta']['iter'] == 4
    assert (folder / 'run/best_mIoU_iter_4.pth').exists()


def test_train_on_a_backbone_of_8_bits(folder, tool, tmp_path):
    tool('train.py', folder / 'config.py', '--work-dir', tmp_path, '--seed', 0, '--no-validate',
         '--cfg-options', 'model.backbone.frozen_dtype=int8', 'runner.max_iters=2')
    assert torch.load(tmp_path / 'iter_2.pth', weights_only=True)['meta']['iter'] == 2


@pytest.mark.slow
@pytest.mark.parametrize('part', ["adapt=dict(type='lora', r=4)", 'train_last=1'])
def test_train_and_test_a_backbone_of_which_a_part_is_trained(zygote, tool, tmp_path, part):
    zygote.import_once('peft')
    config = write_config(tmp_path / 'config.py', draw_data(tmp_path), 'few_shot_tiny',
                          f'model = dict(backbone=dict({part}))\n')
    tool('train.py', config, '--work-dir', tmp_path / 'run', '--seed', 0)
    saved = torch.load(tmp_path / 'run/latest.pth', weights_only=True)
    assert saved['meta']['iter'] == 4
    assert any('lora_B' in name for name in saved['state_dict']) == ('lora' in part)
    text = tool('test.py', config, tmp_path / 'run/latest.pth', '--eval', 'mIoU',
                '--work-dir', tmp_path / 'test')
    assert 'mIoU' in text and list((tmp_path / 'test').glob('eval_*.json'))


def test_test(folder, tool, tmp_path):
    text = tool('test.py', folder / 'config.py', folder / 'run/latest.pth', '--eval', 'mIoU',
                '--work-dir', tmp_path)
    assert 'mIoU' in text and list(tmp_path.glob('eval_*.json'))


@pytest.mark.slow
def test_confusion_matrix(folder, tool, tmp_path):
    # The labels of 22500 fields take a minute or two, and the picture about 2 GB.
    tool('test.py', folder / 'config.py', folder / 'run/latest.pth', '--out', tmp_path / 'r.pkl',
         '--work-dir', tmp_path)
    # A fresh process: the package limits the picture where it is imported by this tool.
    run('python', TOOLS / 'confusion_matrix.py', folder / 'config.py', tmp_path / 'r.pkl', tmp_path)
    assert (tmp_path / 'confusion_matrix.png').stat().st_size > 100_000


def test_print_config_and_get_flops(folder, tool, tmp_path):
    # It also writes an example.py into the current folder.
    assert 'InternViT6B' in tool('print_config.py', folder / 'config.py', cwd=tmp_path)
    assert 'Params' in tool('get_flops.py', folder / 'config.py', '--shape', 112, 112)


def test_browse_dataset(folder, tool, tmp_path):
    tool('browse_dataset.py', folder / 'config.py', '--output-dir', tmp_path)
    assert len(list(tmp_path.rglob('*.jpg'))) == 6


def test_analyze_logs_and_publish_model(folder, tool, tmp_path):
    log = next((folder / 'run').glob('*.log.json'))
    tool('analyze_logs.py', log, '--keys', 'decode.loss_ce', '--out', tmp_path / 'loss.png')
    assert (tmp_path / 'loss.png').stat().st_size > 1000
    tool('publish_model.py', folder / 'run/latest.pth', tmp_path / 'published.pth')
    published = next(tmp_path.glob('published-*.pth'))
    assert 'optimizer' not in torch.load(published, weights_only=True)


@pytest.mark.slow
def test_train_and_test_a_mask_decoder(tool, tmp_path):
    config = write_config(tmp_path / 'config.py', draw_data(tmp_path), 'plain_mask_tiny')
    tool('train.py', config, '--work-dir', tmp_path / 'run', '--seed', 0)
    saved = torch.load(tmp_path / 'run/latest.pth', weights_only=True)
    assert saved['state_dict']['decode_head.attn_mask_probs'].tolist() == [0, 0]  # annealed
    text = tool('test.py', config, tmp_path / 'run/latest.pth', '--eval', 'mIoU',
                '--work-dir', tmp_path / 'test')
    assert 'mIoU' in text
