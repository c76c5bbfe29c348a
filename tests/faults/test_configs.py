"""Configs with a wrong value at each of their keys: refused in one line, or trained to the end."""
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import values
from helpers.data import SMALL_LINEAR, write_config
from helpers.faults import Case, Outcome
from helpers.values import changed, name_of, paths
from mmcv import Config

pytestmark = pytest.mark.slow
VALUES = [*values.VALUES, b'x']
TRIED = 400  # of the values at the keys
# A run that is asked for is no hang, and what is not asked for need not be there.
LONG = {('runner', 'max_iters'): (10**9, math.inf)}


@pytest.fixture(scope='module')
def config(shared_data, tmp_path_factory) -> dict:
    path = write_config(tmp_path_factory.mktemp('config') / 'config.py', shared_data,
                        extra=SMALL_LINEAR + 'runner = dict(max_iters=2)\n'
                        'evaluation = dict(interval=2)')
    return Config.fromfile(str(path))._cfg_dict.to_dict()


def source(value: Any) -> str:
    """Returns the Python text of a value."""
    if isinstance(value, dict):
        return '{' + ', '.join(f'{key!r}: {source(part)}' for key, part in value.items()) + '}'
    if isinstance(value, list):
        return '[' + ', '.join(map(source, value)) + ']'
    if isinstance(value, tuple):
        return '(' + ''.join(f'{source(part)}, ' for part in value) + ')'
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def write(folder: Path, config: dict) -> Path:
    path = folder / 'config.py'
    path.write_text('\n'.join(f'{key} = {source(value)}' for key, value in config.items()))
    return path


def trained(outcome: Outcome) -> str | None:
    """A run that ends well has made its iterations, and its weights are numbers."""
    found = sorted((outcome.folder / 'run').glob('iter_*.pth'))
    if not found:
        return 'no checkpoint'
    weights = torch.load(found[-1], weights_only=True)['state_dict']
    bad = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    return f'{bad[0]} is not finite' if bad else None


def test_each_key_with_wrong_values(config, assert_right):
    places = [(path, value) for path in paths(config) for value in VALUES
              if value not in LONG.get(path, ())]
    assert_right([Case(f'config: {name_of(path, value)}',
                       lambda folder, path=path, value=value: [
                           'train.py', write(folder, changed(config, path, value)),
                           '--work-dir', folder / 'run', '--device', 'cpu'], trained)
                  for path, value in random.Random(0).sample(places, TRIED)])


def test_the_config_itself_trains(config, assert_right):
    def check(outcome):
        return trained(outcome) or (None if 'Iter [2/2]' in outcome.text else 'no iterations')
    assert_right([Case('config', lambda folder: [
        'train.py', write(folder, config), '--work-dir', folder / 'run'], check)])


def test_files_that_are_no_configs(config, assert_right):
    text = '\n'.join(f'{key} = {source(value)}' for key, value in config.items()).encode()
    contents = {
        'empty': b'', 'utf-16': text.decode().encode('utf-16'), 'latin-1': b'# \xe4\n' + text,
        'byte order mark': b'\xef\xbb\xbf' + text, 'a null byte': text + b'\0',
        'syntax': text + b'\nmodel = dict(', 'indent': b'  ' + text, 'binary': bytes(range(256)),
        'missing base': b'_base_ = "./none.py"\n' + text,
        'base of itself': b'_base_ = "./config.py"\n' + text, 'base of 3': b'_base_ = 3\n' + text,
        'missing import': text + b'\ncustom_imports = dict(imports=["no_such_module"])',
        'import of 3': text + b'\ncustom_imports = 3', 'raises': text + b'\nraise ValueError(1)',
        'divides by 0': text + b'\nx = 1 / 0', 'unknown name': text + b'\nx = y',
        'optimzer': text + b'\noptimzer = dict(lr=1)', 'lr too large': text + b'\n'
        b'optimizer = dict(type="SGD", lr=1e30)',
        'epochs': text + b'\nrunner = dict(type="EpochBasedRunner", max_epochs=1)',
        'a generator': text + b'\nx = (i for i in range(3))', 'exit': text + b'\nexit(0)',
        'reserved': text + b'\nfilename = "x"',
    }
    works = ('byte order mark', 'a generator')

    def make(content):
        def make(folder):
            (folder / 'config.py').write_bytes(content)
            return ['train.py', folder / 'config.py', '--work-dir', folder / 'run']
        return make
    assert_right([Case(f'config file: {name}', make(content), trained,
                       must_fail=name not in (*works, 'latin-1', 'epochs', 'utf-16'))
                  for name, content in contents.items()])


def test_options(config, assert_right):
    options = [
        '--cfg-options optimzer.lr=1', '--cfg-options optimizer.lr=abc',
        '--cfg-options model.backbone=3', '--cfg-options data.train.pipeline=3',
        '--cfg-options data.samples_per_gpu=99999999999999', '--cfg-options lr_config=1',
        '--total-batch 0', '--total-batch -3', '--seed -1', '--seed 99999999999999999999',
        '--resume-from none.pth', '--load-from /', '--work-dir /dev/null/run',
        '--spare-dir /dev/null', '--wait-for-disk x', '--device cuda', '--gpu-id 7 --device cuda',
        '--launcher mpi', '--engine hybrid']
    assert_right([Case(f'options: {words}', lambda folder, words=words: [
        'train.py', write(folder, config), '--work-dir', folder / 'run', *words.split()],
        must_fail=True, asks_memory='99999' in words) for words in options])
