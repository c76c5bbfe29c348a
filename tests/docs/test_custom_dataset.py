"""Does what docs/custom_dataset.md says, command by command, in a folder of its own."""
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import ROOT, run
from mmcv import Config
from mmseg.datasets import build_dataset
from mmseg.models import build_segmentor
from PIL import Image

from mmseg_custom.datasets.prepare.manifest import read_manifest

PAGE = ROOT / 'docs/custom_dataset.md'


def commands() -> list[str]:
    """The blocks of the page; those without a heredoc line by line."""
    found = []
    page = PAGE.read_text().replace('\\\n', ' ')
    for block in re.findall(r'^```sh\n(.*?)^```', page, re.MULTILINE | re.DOTALL):
        found += [block] if '<<' in block else block.splitlines()
    return found


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """What a clone looks like, without data."""
    for name in ('tools', 'train.py', 'test.py', 'mmseg_custom'):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_everything_but_the_training(checkout, run_tool):
    done, printed = [], ''
    for command in commands():
        if command.startswith(('python train.py', 'python test.py')):
            done.append('trained')
        elif command.startswith('python tools/'):
            _, tool, *words = shlex.split(command)
            code, output, _ = run_tool(Path(tool).name, *words)
            assert code == 0
            printed += output
            done.append('tool')
        else:
            run('sh', '-e', '-c', command.replace('python -', f'{sys.executable} -'), cwd=checkout)
    assert done.count('trained') == 2 and done.count('tool') == 3
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
                 PYTHONPATH=str(checkout)) for command in commands()]
    assert any(re.search(r'\|\s+square\s+\|', text) and 'mIoU' in text for text in texts)
    assert len(list(Path('work_dirs/own/painted').glob('*.jpg'))) == 6
