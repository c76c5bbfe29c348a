"""Does what docs/custom_dataset.md says, command by command, in a folder of its own."""
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkout import make_checkout, run_command
from helpers.commands import run
from helpers.docs import commands_in
from mmcv import Config
from mmseg.datasets import build_dataset
from mmseg.models import build_segmentor
from PIL import Image

from mmseg_custom.datasets.prepare.manifest import read_manifest

COMMANDS = [command.text for command in commands_in('docs/custom_dataset.md')]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    make_checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_everything_but_the_training(checkout, run_tool):
    printed = ''.join(run_command(command, run_tool) for command in COMMANDS
                      if not command.startswith(('python train.py', 'python test.py')))
    assert '3 of 3' in printed  # the report: all classes shown
    assert read_manifest(checkout / 'data/own/dataset.manifest.json').splits == {
        'train': 24, 'val': 6}
    check_configs()
    labels = {path.parent.name + path.name: np.array(Image.open(path))
              for path in Path('data/painted/labels').glob('*/*.png')}
    assert len(labels) == 30
    for path in Path('data/own/labels').glob('*/*.png'):
        numbers = np.array(Image.open(path))
        numbers[numbers == 2] = 255
        assert (labels[path.parent.name + path.name] == numbers).all()
    street = np.array(Image.open('data/coco/labels/street.png'))
    assert street.shape == (48, 64)
    assert (street[10, 30], street[22, 30], street[28, 30], street[40, 30]) == (0, 1, 1, 2)


def check_configs() -> None:
    for name in ('try', 'linear_probing'):
        cfg = Config.fromfile(f'configs/own/{name}.py')
        cfg.model.backbone.pretrained = None
        with torch.device('meta'):
            model = build_segmentor(cfg.model)
        dataset = build_dataset(cfg.data.train)
        assert model.decode_head.num_classes == len(dataset.CLASSES) == 3
        assert dataset.PALETTE[1] == [200, 60, 40] and len(dataset) == 24
        sample = dataset[0]
        assert sample['img'].data.shape == (3, 504, 504)
        assert set(sample['gt_semantic_seg'].data.unique().tolist()) <= {0, 1, 2, 255}
        assert len(build_dataset(dict(cfg.data.val, test_mode=True))) == 6


@pytest.mark.slow
def test_every_command_as_it_stands(checkout):
    texts = [run('sh', '-e', '-c', command.replace('python ', f'{sys.executable} '), cwd=checkout,
                 PYTHONPATH=str(checkout)) for command in COMMANDS]
    assert any(re.search(r'^\W*square[\s|]+\d+\.\d', text, re.MULTILINE) and 'mIoU' in text
               for text in texts)
    assert len(list(Path('work_dirs/own/painted').glob('*.jpg'))) == 6
