"""A run that was interrupted ends as the one that was not: bit for bit on the CPU."""
import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from helpers.data import draw_data, write_config
from helpers.zygote import Zygote
from mmseg_custom.engine.lock import lock_work_dir

ITERATIONS = 8
# As little as has everything: dropout, drop path, SyncBN, augmentation, layer decay.
SMALL = """
crop = (56, 56)
model = dict(
    backbone=dict(embed_dim=32, depth=4, num_heads=2, img_size=56, pretrain_size=56,
                  out_indices=[0, 1, 2, 3], drop_path_rate=0.3),
    decode_head=dict(in_channels=[32] * 4, channels=8, dropout_ratio=0.3),
    auxiliary_head=dict(in_channels=32, channels=8, dropout_ratio=0.3),
    test_cfg=dict(crop_size=crop, stride=(56, 56)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', img_scale=(224, 56), ratio_range=(0.5, 2.0)),
    dict(type='RandomCrop', crop_size=crop, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
         to_rgb=True),
    dict(type='Pad', size=crop, pad_val=0, seg_pad_val=255),
    dict(type='DefaultFormatBundle'),
    dict(type='Collect', keys=['img', 'gt_semantic_seg'])]
data['train'].update(pipeline=train_pipeline)
data['samples_per_gpu'] = 2
data['workers_per_gpu'] = 1
optimizer = dict(paramwise_cfg=dict(num_layers=4))
runner = dict(max_iters=8)
checkpoint_config = dict(interval=2, max_keep_ckpts=10)
evaluation = dict(interval=4)
"""


@pytest.fixture(scope='module')
def zygote():
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('resume')
    return write_config(folder / 'config.py', draw_data(folder, train=5, val=2),
                        'full_tuning_tiny', SMALL)


@pytest.fixture(scope='module')
def whole(zygote, config, tmp_path_factory):
    """Uninterrupted runs by their number of ranks, each made once."""
    folder, done = tmp_path_factory.mktemp('whole'), {}

    def get(ranks: int) -> Path:
        if ranks not in done:
            done[ranks] = folder / f'{ranks}'
            zygote.train(folder / f'{ranks}.txt', config, '--work-dir', done[ranks], '--seed', 5,
                         *images(ranks), ranks=ranks)
        return done[ranks]
    return get


def images(ranks: int) -> list[str]:
    """The option that makes a step of 4 images on any number of ranks."""
    return ['--cfg-options', f'data.samples_per_gpu={4 // ranks}']


def losses(work_dir: Path) -> dict[int, dict]:
    """Iteration -> what was logged for it last, without times."""
    found = {}
    for path in sorted(work_dir.glob('*.log.json')):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if entry.get('mode') == 'train':
                found[entry['iter']] = {key: value for key, value in entry.items()
                                        if 'time' not in key and key != 'memory'}
    return found


def assert_same_end(work_dir: Path, expected: Path) -> None:
    ends = [torch.load(folder / f'iter_{ITERATIONS}.pth', weights_only=True)
            for folder in (work_dir, expected)]
    for name, tensor in ends[1]['state_dict'].items():
        assert torch.equal(ends[0]['state_dict'][name], tensor), name
    for index, state in ends[1]['optimizer']['state'].items():
        for name, value in state.items():
            assert torch.equal(ends[0]['optimizer']['state'][index][name], value), (index, name)
    assert ends[0]['optimizer']['param_groups'] == ends[1]['optimizer']['param_groups']
    assert losses(work_dir) == losses(expected)
    records = [json.loads((folder / 'best.json').read_text()) for folder in (work_dir, expected)]
    for record, folder in zip(records, (work_dir, expected)):
        best = record['hook_msgs']['best_ckpt']
        assert Path(best).parent == folder and Path(best).exists()
        record['hook_msgs'] = {'score': record['hook_msgs']['best_score'], 'name': Path(best).name}
    assert records[0] == records[1]


def without_the_end(whole_run: Path, work_dir: Path, last: int) -> None:
    """Makes a work dir as it is when the run is killed after the checkpoint of ``last``."""
    shutil.copytree(whole_run, work_dir, symlinks=True)
    for path in work_dir.glob('iter_*.pth'):
        if int(path.stem.removeprefix('iter_')) > last:
            path.unlink()
    (work_dir / 'best.json').unlink()
    for path in work_dir.glob('best_*.pth'):
        path.unlink()


@pytest.mark.parametrize('ranks', [1, 2])
def test_killed_in_an_evaluation(zygote, config, whole, tmp_path, ranks):
    """The evaluation of iteration 4 is made again, and finds the same best score."""
    work_dir = tmp_path / 'run'
    without_the_end(whole(ranks), work_dir, 4)
    text = zygote.train(tmp_path / 'log.txt', config, '--work-dir', work_dir, '--auto-resume',
                        *images(ranks), ranks=ranks)
    assert 'going on after iteration 4' in text and 'seed: 5' in text
    assert 'evaluation of iteration 4 was not finished' in text
    assert_same_end(work_dir, whole(ranks))


@pytest.mark.parametrize('number', [signal.SIGUSR1, signal.SIGTERM])
def test_preempted(zygote, config, whole, tmp_path, number):
    """Stopped after whatever iteration it is in; one rank of two, and its workers, get the signal."""
    work_dir, arguments = tmp_path / 'run', ['--work-dir', tmp_path / 'run', '--auto-resume']
    processes = zygote.start(tmp_path / 'first.txt', config, *arguments, '--seed', 5, *images(2),
                             ranks=2)
    wait_for(work_dir / 'iter_2.pth')
    os.killpg(processes[1], number)
    assert [zygote.wait(process) for process in processes] == [75, 75], (
        tmp_path / 'first.txt').read_text()[-3000:]
    assert f'stopped by {number.name} after iteration' in (tmp_path / 'first.txt').read_text()
    assert not (work_dir / 'iter_8.pth').exists()
    zygote.train(tmp_path / 'second.txt', config, *arguments, *images(2), ranks=2)
    assert_same_end(work_dir, whole(2))


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f'{path} has not come'
        time.sleep(0.02)


@pytest.mark.parametrize('options, message', [
    (['model.backbone.drop_path_rate=0.1', 'data.samples_per_gpu=4'],
     'model.backbone.drop_path_rate was 0.3 and is 0.1 here'),
    (['optimizer.lr=1.0', 'data.samples_per_gpu=4'], 'optimizer.lr was 0.001 and is 1.0 here'),
    (['data.samples_per_gpu=3'], 'images a step was 4 and is 3 here'),
    (['data.train.max_image_num=4', 'data.samples_per_gpu=4'],
     'list of images was 5 images, SHA-256 '),
])
def test_another_run_is_refused(zygote, config, whole, tmp_path, options, message):
    before = sorted(whole(1).iterdir())
    text = zygote.train(tmp_path / 'log.txt', config, '--work-dir', tmp_path / 'run',
                        '--resume-from', whole(1) / 'iter_4.pth', '--cfg-options', *options, code=1)
    last = text.strip().splitlines()[-1]
    assert last.startswith('error: ') and message in last and 'iter_4.pth' in last
    assert 'Traceback' not in text and sorted(whole(1).iterdir()) == before


def test_one_run_a_work_dir(zygote, config, tmp_path):
    """The others here show that the lock goes when its holder does."""
    (tmp_path / 'run').mkdir()
    lock_work_dir(tmp_path / 'run')
    text = zygote.train(tmp_path / 'log.txt', config, '--work-dir', tmp_path / 'run', code=1)
    assert f'is in use by process {os.getpid()} on ' in text.strip().splitlines()[-1]
    assert {path.name for path in (tmp_path / 'run').iterdir()} == {'.lock'}


@pytest.mark.slow
def test_killed_twenty_times(zygote, config, whole, tmp_path):
    """A random rank dies at a random moment, start-up, saving and evaluation included."""
    rng, work_dir, kills, seconds = random.Random(0), tmp_path / 'run', 0, 6.0
    common = ['--work-dir', work_dir, '--auto-resume', '--seed', 5, *images(2)]
    while kills < 20:
        began = time.monotonic()
        log = tmp_path / f'{kills}.txt'
        processes = zygote.start(log, config, *common, ranks=2)
        victim, other = rng.sample(processes, 2)
        time.sleep(rng.uniform(0, seconds))
        os.kill(victim, signal.SIGKILL)
        launcher = threading.Timer(10, os.kill, (other, signal.SIGKILL))  # in place of torchrun
        launcher.start()
        codes = [zygote.wait(process) for process in (victim, other)]
        launcher.cancel()
        if codes == [0, 0]:  # it was faster, and starts anew
            seconds = min(seconds, time.monotonic() - began)
            shutil.rmtree(work_dir)
            continue
        assert codes[0] == -signal.SIGKILL and codes[1] != 0, log.read_text()[-3000:]
        kills += 1
    zygote.train(tmp_path / 'last.txt', config, *common, ranks=2)
    assert_same_end(work_dir, whole(2))
