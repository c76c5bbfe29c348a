"""A head of a sweep is what it is when it is trained alone: bit for bit on the CPU."""
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from helpers.data import draw_data, write_config
from helpers.runs import SMALL, final_state, losses, spread, wait_for
from PIL import Image

LINEAR = """
model = dict(
    backbone=dict(type='InternViT6B', embed_dim=32, depth=4, out_indices=[3]),
    decode_head=dict(type='FCNHead', with_norm=True, num_convs=0, concat_input=False,
                     dropout_ratio=0.0, in_channels=32, channels=32, num_classes=150,
                     loss_decode=dict(type='CrossEntropyLoss')))
"""
BATCHED = """
log_config = dict(interval=2)
optimizer_config = dict(grad_clip=None)
sweep = dict(lr=[1e-3, 3e-3, 1e30], layers=[1], head=['linear'], models=dict(linear='{linear}'),
             batched={batched})
"""
FROZEN = SMALL.replace('freeze_vit=False', 'freeze_vit=True') + """
log_config = dict(interval=2)
optimizer_config = dict(grad_clip=dict(max_norm=1.0))
sweep = dict(lr=[1e-3, 1e30], layers=[1], head=['linear', 'upernet'],
             models=dict(linear='{linear}'))
"""
LINEAR_HEAD, UPERNET = 'linear_l1_lr0.001', 'upernet_l0-1-2-3_lr0.001'
DIVERGED = ['linear_l1_lr1e+30', 'upernet_l0-1-2-3_lr1e+30']


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('sweep')
    (folder / 'linear.py').write_text(LINEAR)
    return write_config(folder / 'config.py', draw_data(folder, train=5, val=2),
                        'head_tuning_tiny', FROZEN.replace('{linear}', f'{folder}/linear.py'))


@pytest.fixture(scope='module')
def whole(zygote, config, tmp_path_factory):
    """Uninterrupted sweeps by their number of ranks, each made once."""
    folder, done = tmp_path_factory.mktemp('whole'), {}

    def get(ranks: int) -> Path:
        if ranks not in done:
            done[ranks] = folder / f'sweep{ranks}'
            zygote.train(config, '--work-dir', done[ranks], '--seed', 5,
                         *spread(ranks), ranks=ranks)
        return done[ranks]
    return get


def assert_same(head: Path, expected: Path) -> None:
    end, expected_end = final_state(head), final_state(expected)
    assert end.keys() == expected_end.keys()
    for name, value in expected_end.items():
        assert torch.equal(end[name], value) if isinstance(value, torch.Tensor) else (
            end[name] == value), name
    assert losses(head) == losses(expected)
    scores = [json.loads((run / 'best.json').read_text())['hook_msgs']['best_score']
              for run in (head, expected)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize('ranks, name', [
    (1, UPERNET), pytest.param(1, LINEAR_HEAD, marks=pytest.mark.slow),
    pytest.param(2, UPERNET, marks=pytest.mark.slow)])
def test_a_head_is_what_it_is_alone(zygote, whole, tmp_path, ranks, name):
    head = whole(ranks) / name
    zygote.train(head / 'config.py', '--work-dir', tmp_path / 'alone',
                 '--seed', 5, *spread(ranks), ranks=ranks)
    assert_same(head, tmp_path / 'alone')
    alone, swept = (torch.load(run / 'iter_8.pth', weights_only=True)['meta']
                    for run in (tmp_path / 'alone', head))
    assert alone['run'] == swept['run']


def test_what_diverges_is_stopped_and_reported(whole):
    results = json.loads((whole(1) / 'sweep.json').read_text())
    heads = {head['name']: head for head in results['heads']}
    assert list(heads) == [LINEAR_HEAD, DIVERGED[0], UPERNET, DIVERGED[1]]
    for name in DIVERGED:
        assert heads[name]['state'] == 'diverged' and heads[name]['best_mIoU'] is None
        assert heads[name]['reason'] == (
            'the loss is nan in iteration 2, at a learning rate of 8.75e+29')
        assert not list((whole(1) / name).glob('*.pth'))
    for name in (LINEAR_HEAD, UPERNET):
        assert heads[name]['state'] == 'finished' and heads[name]['iterations'] == 8
        scores = json.loads((whole(1) / name / 'evaluations.json').read_text())
        assert list(scores) == ['4', '8'] and heads[name]['mIoU'] == scores['8']['mIoU']
        assert len(list((whole(1) / name).glob('iter_*'))) == 3  # max_keep_ckpts
    best = max((LINEAR_HEAD, UPERNET), key=lambda name: heads[name]['best_mIoU'])
    assert results['best'] == best and results['spread']['heads'] == 2
    assert Image.open(whole(1) / 'sweep.png').size[0] > 300
    page = (whole(1) / 'README.md').read_text()
    assert '**Finished**' in page and '8 of 8 iterations' in page
    assert page.index(f'[{best}](') < page.index(f'[{DIVERGED[0]}](') and (
        'diverged: the loss is nan in iteration 2' in page)
    assert f'{whole(1) / best}/config.py' in page and '![mIoU of the heads' in page
    assert Image.open(whole(1) / best / 'curves.png').size[0] == 1200
    assert (whole(1) / best / 'classes.csv').exists()


@pytest.mark.slow
def test_preempted_on_two_ranks(zygote, config, whole, tmp_path):
    """All heads are saved, code 75; then all are resumed, and the diverged ones stay stopped."""
    work_dir = tmp_path / 'run'
    arguments = [config, '--work-dir', work_dir, '--auto-resume', *spread(2)]
    processes = zygote.start_training(tmp_path / 'first.txt', *arguments, '--seed', 5, ranks=2)
    wait_for(work_dir / UPERNET / 'iter_2.pth')
    os.killpg(processes[1], signal.SIGTERM)
    assert [zygote.wait(process) for process in processes] == [75, 75], (
        tmp_path / 'first.txt').read_text()[-3000:]
    assert not list(work_dir.glob('*/iter_8.pth'))
    text = zygote.train(*arguments, ranks=2)
    assert 'seed: 5' in text
    for name in (LINEAR_HEAD, UPERNET):
        assert_same(work_dir / name, whole(2) / name)


@pytest.mark.slow
def test_killed_while_heads_are_saved(zygote, config, whole, tmp_path):
    """One head has a checkpoint more than the other: both resume from the last that both have."""
    work_dir = tmp_path / 'run'
    shutil.copytree(whole(1), work_dir, symlinks=True)
    for name, last in ((LINEAR_HEAD, 6), (UPERNET, 4)):
        (work_dir / name / 'result.json').unlink()
        for path in [*(work_dir / name).glob('iter_*'), *(work_dir / name).glob('best*')]:
            if path.stem.startswith('best') or int(path.stem.removeprefix('iter_')) > last:
                path.unlink()
    text = zygote.train(config, '--work-dir', work_dir, '--auto-resume',
                        *spread(1), '--cfg-options', 'sweep.lr=[1e-3]')
    # that of iteration 4 is made again
    assert [text.count(f'iteration {n}: mIoU ') for n in (2, 4, 6, 8)] == [0, 1, 0, 1]
    for name in (LINEAR_HEAD, UPERNET):
        assert_same(work_dir / name, whole(1) / name)


@pytest.fixture(scope='module')
def linear(tmp_path_factory):
    """Returns the config of a sweep of linear heads, with the given value of ``batched``."""
    folder = tmp_path_factory.mktemp('linear')
    (folder / 'linear.py').write_text(LINEAR)
    data = draw_data(folder, train=5, val=2)

    def config(batched: bool) -> Path:
        text = SMALL.replace('freeze_vit=False', 'freeze_vit=True') + BATCHED.format(
            linear=f'{folder}/linear.py', batched=batched)
        return write_config(folder / f'{batched}.py', data, 'head_tuning_tiny', text)
    return config


TOGETHER = ['linear_l1_lr0.001', 'linear_l1_lr0.003']


@pytest.mark.slow
@pytest.mark.parametrize('ranks', [1, 2])
def test_heads_that_are_trained_together_end_where_they_end_alone(zygote, linear, tmp_path, ranks):
    """Up to rounding in float32; one that diverges stops in the same iteration."""
    options = ['--seed', 5, *spread(ranks)]
    text = zygote.train(linear(True), '--work-dir', tmp_path / 'run', *options, ranks=ranks)
    assert '3 of 3 head(s) are trained together, in 1 group(s)' in text
    zygote.train(linear(False), '--work-dir', tmp_path / 'alone', *options, ranks=ranks)
    diverged = [json.loads((tmp_path / run / DIVERGED[0] / 'result.json').read_text())
                for run in ('run', 'alone')]
    assert diverged[0]['state'] == 'diverged' and diverged[0] == {**diverged[1], 'run': diverged[
        0]['run']}
    for name in TOGETHER:
        head, alone = tmp_path / 'run' / name, tmp_path / 'alone' / name
        end, expected = final_state(head), final_state(alone)
        assert end.keys() == expected.keys()
        for key, value in expected.items():
            assert not isinstance(value, torch.Tensor) or torch.allclose(
                end[key].double(), value.double(), rtol=1e-4, atol=1e-6), key
        logged, expected = losses(head), losses(alone)
        assert logged.keys() == expected.keys()
        for i, entry in expected.items():
            assert logged[i].keys() == entry.keys()
            assert logged[i]['loss'] == pytest.approx(entry['loss'], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('ranks', [1, 2])
def test_heads_that_are_trained_together_are_resumed(zygote, linear, tmp_path, ranks):
    """With the same bits."""
    arguments = [linear(True), *spread(ranks)]
    zygote.train(*arguments, '--work-dir', tmp_path / 'whole', '--seed', 5, ranks=ranks)
    shutil.copytree(tmp_path / 'whole', tmp_path / 'again', symlinks=True)
    for name in TOGETHER:
        (tmp_path / 'again' / name / 'result.json').unlink()
        for path in [*tmp_path.glob(f'again/{name}/iter_[68].*'),
                     *tmp_path.glob(f'again/{name}/best*')]:
            path.unlink()
    zygote.train(*arguments, '--work-dir', tmp_path / 'again', '--auto-resume', ranks=ranks)
    for name in TOGETHER:
        assert_same(tmp_path / 'again' / name, tmp_path / 'whole' / name)
