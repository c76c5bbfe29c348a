"""The same commands on a GPU."""
import json

import pytest
import torch
from helpers.commands import run
from helpers.data import draw_data, write_config

pytestmark = [pytest.mark.gpu,
              pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')]


@pytest.mark.parametrize('recipe', ['full_tuning_tiny', 'head_tuning_tiny'])
def test_trains_and_tests_as_on_the_cpu(recipe, tmp_path):
    config = write_config(tmp_path / 'config.py', draw_data(tmp_path), recipe)
    run('sh', 'dist_train.sh', config, 1, '--work-dir', tmp_path / 'run', '--seed', 0)
    figures = []
    for device in ('cuda', 'cpu'):
        run('python', 'tools/test.py', config, tmp_path / 'run/latest.pth', '--device', device,
            '--eval', 'mIoU', '--work-dir', tmp_path / device)
        figures.append(json.loads(next((tmp_path / device).glob('*.json')).read_text()))
    assert figures[0]['metric']['aAcc'] == pytest.approx(figures[1]['metric']['aAcc'], abs=0.02)
