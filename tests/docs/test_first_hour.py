"""Does what docs/first_hour.md says, in its order, in a folder of its own.

What is marked as needing a network, weights or minutes is replaced: the demo by its untrained
network, InternViT-300M by random weights of two narrow blocks. All other commands are run as they
stand, the trainings of the fast test with fewer iterations.
"""
import re
import shutil
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from helpers.checkout import make_checkout, run_command
from helpers.commands import ROOT, run
from helpers.docs import commands_in
from mmcv import Config
from mmseg.models import build_segmentor
from PIL import Image

from mmseg_custom.checkpoint.convert import convert

PHOTO = Path(matplotlib.get_data_path()) / 'sample_data/grace_hopper.jpg'
COMMANDS = [(command.needs, command.text) for command in commands_in('docs/first_hour.md')]
SHORT = ('log_config.interval=1', 'checkpoint_config.interval=2', 'data.samples_per_gpu=1')


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    make_checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    base = tmp_path / 'configs/_base_/models/intern_vit_300m.py'
    text = base.read_text()
    for wide, narrow in (('1024', '32'), ('depth=24', 'depth=2'), ('num_heads=16', 'num_heads=2'),
                         ('out_indices=[23]', 'out_indices=[1]')):
        assert wide in text
        text = text.replace(wide, narrow)
    base.write_text(text)
    return tmp_path


def in_place_of(command: str) -> None:
    """Makes what a marked command makes, without what it needs."""
    if command == 'make demo':
        cfg = Config.fromfile('configs/tiny/full_tuning_tiny.py')
        target = Path('work_dirs/demo/training/latest.pth')
        target.parent.mkdir(parents=True)
        torch.save(dict(meta={}, state_dict=build_segmentor(cfg.model).state_dict()), target)
    elif command.startswith('hf download'):
        cfg = Config.fromfile(
            'configs/intern_vit_300m/linear_probing/'
            'linear_intern_vit_300m_448_80k_ade20k_bs16_lr4e-5_frozen.py')
        cfg.model.backbone.pretrained = None
        torch.save(build_segmentor(cfg.model).backbone.state_dict(), 'random.pth')
        Path('pretrained').mkdir()
        convert('random.pth', re.search('--local-dir (.*)', command)[1], 'hf', num_heads=2)


def check_what_is_there(printed: str) -> None:
    assert 'data/own/dataset.yaml is ready: 24 train, 6 val' in printed
    with Image.open('work_dirs/photo/labels/photo.png') as labels, Image.open(PHOTO) as photo:
        assert labels.size == photo.size
        assert set(np.unique(np.array(labels))) <= {0, 1, 2}
    assert re.search(r'^\W*square[\s|]+\d+\.\d', printed, re.MULTILINE)  # in the table of classes
    report, = Path('work_dirs/head').glob('eval_single_scale_*.html')
    assert 'disc' in report.read_text()
    whole = torch.load('work_dirs/head/whole.pth', weights_only=True)['state_dict']
    assert {name.split('.')[0] for name in whole} == {'backbone', 'decode_head'}


@pytest.mark.slow
def test_with_fewer_iterations(checkout, run_tool):
    printed = ''
    for needs, command in COMMANDS:
        if needs or command.startswith('cp '):
            in_place_of(command)
            shutil.copy(PHOTO, 'photo.jpg')
        elif 'doctor.py' in command:  # its prediction takes long, and has tests of its own
            continue
        elif '--auto-resume' in command:
            Path('work_dirs/head/latest.pth').unlink()  # stopped after the second iteration
            Path('work_dirs/head/iter_4.pth').unlink()
            printed += run_command(command, run_tool, (*SHORT, 'runner.max_iters=4'))
            assert 'resumed' in printed
        else:
            printed += run_command(command, run_tool, (*SHORT, 'runner.max_iters=4',
                                                       'evaluation.interval=4'))
    check_what_is_there(printed)


@pytest.mark.slow
def test_every_command_as_it_stands(checkout):
    printed = ''
    for needs, command in COMMANDS:
        if needs:
            in_place_of(command)
        elif command.startswith('cp '):
            shutil.copy(PHOTO, 'photo.jpg')
        else:
            printed += run('sh', '-e', '-c', command.replace('python ', f'{sys.executable} '),
                           cwd=checkout, PYTHONPATH=str(checkout))
    check_what_is_there(printed)
    assert str(ROOT) not in Path('work_dirs/head/latest.pth').resolve().as_posix()
