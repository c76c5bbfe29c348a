"""kill -9 at random moments: what is started again ends with the bits of what was left alone."""
import json
import os
import random
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data import draw_data, write_config
from helpers.faults import FIGURES, run_guarded, start_guarded
from helpers.runs import PARTLY, SMALL, assert_same_end, spread, write_small_config
from helpers.zygote import Zygote

from mmseg_custom.models.backbones.intern_vit import InternViT6B

pytestmark = pytest.mark.slow
KILLS = 24  # of each engine
TOOL_KILLS = 12  # of each tool
LIMIT = 120  # seconds of a run
MOMENTS = ('start', 'any', 'saving', 'evaluation')


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    return write_small_config(tmp_path_factory.mktemp('kills'))


@pytest.fixture(scope='module')
def flat(tmp_path_factory) -> Path:
    """Weights of 10 MB, whose writing takes a moment."""
    path = tmp_path_factory.mktemp('flat') / 'flat.pth'
    torch.manual_seed(0)
    torch.save(InternViT6B(embed_dim=192, num_heads=2, depth=6, img_size=56,
                           out_indices=[5]).state_dict(), path)
    return path


def until(moment: str, work_dir: Path, log: Path, alive: Callable[[], bool],
          rng: random.Random) -> None:
    """Waits for a moment of a run, or for its end."""
    if moment == 'start':
        return time.sleep(rng.uniform(0, 1))
    if moment == 'any':
        return time.sleep(rng.uniform(0, 4))
    reached = {'saving': lambda: any(work_dir.glob('*.part')),
               'evaluation': lambda: 'iter_4.' in log.read_text()
               or 'is repeated now' in log.read_text()}[moment]
    skip = rng.randrange(3) if moment == 'saving' else 0  # the first, the second or the third
    while alive():
        if reached():
            if not skip:
                break
            skip -= 1
            while alive() and reached():
                time.sleep(.0005)
        time.sleep(.0005)
    time.sleep(rng.uniform(0, .02 if moment == 'saving' else .5))


def is_alive(process: int) -> bool:
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.mark.parametrize('ranks, engine, background, part', [
    (1, 'single', False, None), (2, 'ddp', False, None), (2, 'fsdp2', False, None),
    (2, 'fsdp2', True, None), (1, 'single', False, 'dora'), (2, 'ddp', False, 'lora'),
    (2, 'fsdp2', True, 'last_blocks')])
def test_training(zygote, tmp_path, ranks, engine, background, part):
    """At the start, while it trains, saves and evaluates; a rank alone, or all at once."""
    rng, kills, runs = random.Random(engine), 0, 0
    zygote.import_once('peft')
    config = write_small_config(tmp_path, PARTLY.get(part, ''))
    common = ['--seed', 5, *spread(ranks, engine), '--cfg-options',
              f'checkpoint_config.background={background}']
    zygote.train(config, '--work-dir', tmp_path / 'whole', *common, ranks=ranks)
    work_dir = tmp_path / 'run'
    while kills < KILLS:
        log = tmp_path / f'{runs}.txt'
        log.touch()
        runs += 1
        processes = zygote.start_training(log, config, '--work-dir', work_dir, '--auto-resume',
                                          *common, ranks=ranks)
        victims = rng.sample(processes, len(processes))
        until(MOMENTS[kills % 4], work_dir, log, lambda v=victims: is_alive(v[0]), rng)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
            if rng.random() < .5:
                time.sleep(rng.uniform(0, .2))
        codes = [zygote.wait(process) for process in victims]
        text = log.read_text()
        if set(codes) == {-signal.SIGKILL} or codes[0] == -signal.SIGKILL:
            kills += 1
            FIGURES.kills += 1
        assert 'cannot be read' not in text, text[-2000:]
        if list(work_dir.glob('iter_8.*')):  # it was faster: it must have ended well
            finish(zygote, config, work_dir, tmp_path, common, ranks)
            shutil.rmtree(work_dir)
    finish(zygote, config, work_dir, tmp_path, common, ranks)


def finish(zygote, config, work_dir, tmp_path, common, ranks) -> None:
    """Resumes to the end, and compares with the run that was left alone."""
    try:
        zygote.train(config, '--work-dir', work_dir, '--auto-resume', *common, ranks=ranks)
        assert_same_end(work_dir, tmp_path / 'whole', killed=True)
        assert not list(work_dir.glob('*.part'))
    except AssertionError:
        FIGURES.wrong['lost files'] += 1
        raise


class Tool:
    """A tool that is killed, started again, and compared with one that was left alone.

    Args:
        command: Folder -> words of the command, which works in that folder.
        result: Folder -> what must be equal.
    """

    def __init__(self, command: Callable[[Path], list], result: Callable[[Path], object]):
        self.command, self.result = command, result

    def run(self, zygote: Zygote, folder: Path) -> str:
        outcome = run_guarded(zygote, folder, self.command(folder), LIMIT)
        # A tool that was killed after its last file has nothing left to do, and says so.
        done = 'exists: remove it first' in outcome.last
        assert outcome.code == 0 or done, f'code {outcome.code}: {outcome.text[-1000:]}'
        assert not outcome.report, outcome.report
        return outcome.text

    def check(self, zygote: Zygote, tmp_path: Path, seed: str,
              kills: int = TOOL_KILLS) -> None:
        rng, done = random.Random(seed), 0
        began = time.monotonic()
        (tmp_path / 'whole').mkdir()
        self.run(zygote, tmp_path / 'whole')
        seconds, expected = time.monotonic() - began, self.result(tmp_path / 'whole')
        assert expected
        for number in range(10 * kills):
            folder = tmp_path / str(number)
            folder.mkdir()
            [process], read = start_guarded(zygote, folder, self.command(folder), LIMIT)
            time.sleep(rng.uniform(0, seconds))
            # The process alone, so that its helpers outlive it, or all of them.
            (os.killpg if number % 2 else os.kill)(process, signal.SIGKILL)
            if read(zygote.wait(process)).code == -signal.SIGKILL:
                done += 1
                FIGURES.kills += 1
            try:
                self.run(zygote, folder)
                assert self.result(folder) == expected, folder
            except AssertionError:
                FIGURES.wrong['lost files'] += 1
                raise
            shutil.rmtree(folder)
            if done == kills:
                return
            if number == 0:
                seconds = max(.9 * seconds, .05)
        raise AssertionError(f'only {done} of {kills} were alive when they were to be killed')


def contents(folder: Path, pattern: str = '*', ignored: tuple[str, ...] = ()) -> dict:
    """Relative path -> content of the files in a folder; half-written ones count."""
    own = ('bounds.json', 'log.txt', 'report.txt', *ignored)
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob(pattern)) if path.is_file() and path.name not in own
            and 'internvit' not in str(path.relative_to(folder))}


@pytest.mark.parametrize('options', [
    ['out.safetensors'], ['out.pth', '--dtype', 'float16'],
    ['hub', '--to', 'hf', '--num-heads', 2, '--shard-gb', 2e-3]], ids=lambda words: words[0])
def test_converting(zygote, flat, tmp_path, options):
    target, *more = options
    Tool(lambda folder: ['convert_weights.py', flat, folder / target, *more],
         contents).check(zygote, tmp_path, target, TOOL_KILLS // 2)


def test_merging(zygote, config, tmp_path):
    zygote.train(config, '--work-dir', tmp_path / 'two', '--seed', 5, *spread(2, 'fsdp2'), ranks=2)
    source = tmp_path / 'two' / 'iter_8.dcp'
    Tool(lambda folder: ['merge_checkpoint.py', source, folder / 'out.pth'],
         contents).check(zygote, tmp_path, 'merge')


def test_preparing(zygote, tmp_path):
    data = draw_data(tmp_path / 'data', train=40, val=10)
    with zipfile.ZipFile(tmp_path / 'data.zip', 'w') as archive:
        for path in sorted(data.rglob('*')):
            archive.write(path, path.relative_to(data.parent))
    Tool(lambda folder: ['prepare_data.py', 'ade20k', tmp_path / 'data.zip', '--out',
                         folder / 'ade', '--subset', '--workers', 2],
         lambda folder: contents(folder / 'ade', ignored=('.lock', '.prepare.lock'))
         ).check(zygote, tmp_path, 'prepare')


def test_filling_a_cache(zygote, tmp_path):
    data = draw_data(tmp_path / 'data', train=8, val=1)
    frozen = SMALL + """
model['backbone'].update(freeze_vit=True, drop_path_rate=0.0)
feature_cache = dict(dir='none', views=6, seed=5)
data['workers_per_gpu'] = 0
"""
    config = write_config(tmp_path / 'config.py', data, 'head_tuning_tiny', frozen)
    Tool(lambda folder: ['cache.py', 'build', config, '--cfg-options',
                         f'feature_cache.dir={folder}/cache'],
         lambda folder: {Path(name).name: content for name, content in contents(
             folder / 'cache', 'view*').items() if not name.endswith('.part')}
         ).check(zygote, tmp_path, 'cache')


def test_evaluating(zygote, config, tmp_path):
    """A test that was killed leaves nothing that the next one takes for its own."""
    zygote.train(config, '--work-dir', tmp_path / 'run', '--seed', 5, *spread(1))

    def result(folder):
        """The metrics, and what each image contributes to them."""
        assert not list(folder.glob('*.part')), 'half-written files'
        found = sorted(folder.glob('eval_*.json'))[-1]
        with np.load(found.with_suffix('.npz')) as arrays:
            images = {name: arrays[name].tobytes() for name in arrays}
        return {'metric': json.loads(found.read_text())['metric'], **images}
    Tool(lambda folder: ['test.py', config, tmp_path / 'run' / 'iter_8.pth', '--eval', 'mIoU',
                         '--work-dir', folder],
         result).check(zygote, tmp_path, 'evaluate', 8)
