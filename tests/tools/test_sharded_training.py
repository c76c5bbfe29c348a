"""Sharded training from the command line: its checkpoints go into every other tool."""
import json
import socket
from pathlib import Path

import pytest
from helpers.commands import run
from helpers.data import draw_data, write_config

pytestmark = pytest.mark.slow

SMALL = """
model = dict(backbone=dict(embed_dim=48, num_heads=2, depth=4, out_indices=[3], with_cp=True),
             decode_head=dict(in_channels=48, channels=48))
optimizer = dict(paramwise_cfg=dict(num_layers=4))
optimizer_config = dict(grad_clip=dict(max_norm=1.0, norm_type=2))
data['train']['max_image_num'] = 6
evaluation = dict(interval=2, save_best='mIoU')
checkpoint_config = dict(interval=2, max_keep_ckpts=1)
"""


def port() -> str:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('sharded')
    write_config(folder / 'config.py', draw_data(folder), 'few_shot_tiny', SMALL)
    text = run('sh', 'dist_train.sh', folder / 'config.py', 2, '--work-dir', folder / 'run',
               '--seed', 0, '--total-batch', 8, PORT=port())
    assert 'engine: fsdp2 (the backbone is trained), 2 process(es)' in text
    assert '8 images a step = 2 a process x 2 process(es) x 2 accumulated' in text
    assert 'grad_norm: ' in text
    return folder


def test_what_training_leaves(trained):
    names = {path.name for path in (trained / 'run').iterdir() if 'pth' in path.name
             or 'dcp' in path.name}
    best = {name for name in names if name.startswith('best_mIoU_iter_')}
    assert names - best == {'iter_4.dcp', 'latest.pth'} and len(best) == 1
    assert (trained / 'run/latest.pth').resolve().name == 'iter_4.dcp'


def test_folder_and_merged_file_test_alike(trained, tmp_path):
    run('python', 'tools/merge_checkpoint.py', trained / 'run/latest.pth', tmp_path / 'whole.pth')
    metrics = []
    for checkpoint in (trained / 'run/latest.pth', tmp_path / 'whole.pth'):
        work_dir = tmp_path / checkpoint.stem
        run('python', 'tools/test.py', trained / 'config.py', checkpoint, '--eval', 'mIoU',
            '--work-dir', work_dir)
        metrics.append(json.loads(next(work_dir.glob('eval_*.json')).read_text())['metric'])
    assert metrics[0] == metrics[1]
    log = [json.loads(line) for line in next((trained / 'run').glob('*.log.json')).open()]
    validated = [entry for entry in log if entry.get('mode') == 'val'][-1]
    assert validated['mIoU'] == pytest.approx(metrics[0]['mIoU'], abs=1e-4)


def test_one_process_goes_on(trained):
    text = run('python', 'tools/train.py', trained / 'config.py', '--work-dir', trained / 'run',
               '--auto-resume', '--no-validate', '--total-batch', 8, '--cfg-options',
               'runner.max_iters=5')
    assert 'engine: single (one process)' in text
    assert 'resumed after iteration 4' in text and 'Iter [5/5]' in text
