"""Compares what this checkout and another one compute on the CPU, bit for bit.

    git worktree add /tmp/before d1afd45
    python benchmarks/compare_checkouts.py /tmp/before

Both checkouts run their own tools and recipes, with tiny networks, on the same few drawn images.
Settings, losses, weights, optimizer states, labels, metrics, caches, converted files, few-shot
lists and the doctor's predictions are compared; times, versions, folders and config texts are not.
The exit code is 1 if a case differs or fails.
"""
import argparse
import hashlib
import json
import pickle
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _checkout import END, MIDDLE, TRAIN_OPTIONS, Checkout, CommandError
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

ROOT = Path(__file__).resolve().parents[1]
SHOWN = 5  # differences of a case
# What a run reads of a recipe. The other keys are variables from which recipes are put together.
SETTINGS = {'model', 'data', 'optimizer', 'optimizer_config', 'lr_config', 'runner', 'total_batch',
            'checkpoint_config', 'evaluation', 'custom_hooks', 'custom_imports', 'log_config',
            'log_level', 'dist_params', 'cudnn_benchmark', 'load_from', 'resume_from', 'workflow',
            'engine', 'precision', 'sweep', 'feature_cache', 'seed'}
# Keys that are not compared: they differ between two runs of one checkout, or hold the config.
# A resumed run does not know the checkpoint before the one that it was resumed from (last_ckpt).
# torch puts a random number into the .metadata of each sharded checkpoint.
UNSTABLE = {'time', 'data_time', 'eta', 'memory', 'seconds', 'date', 'timestamp', 'config',
            'settings', 'env_info', 'hardware', 'versions', 'mmseg_version', 'mmcv_version',
            'peak_memory_bytes', 'last_ckpt', 'crc32 of .metadata'}
UNSTABLE_FILES = re.compile(
    r'.*\.(log|txt|py)|\.lock|tf_logs|checked\.json|README\.md|run\.json')
INTENDED = {'pretrain_size'}  # keys that may differ: nothing reads it in the recipes that lost it
RECIPES_SCRIPT = """
import json, sys
from pathlib import Path
from mmcv import Config
paths = [path for path in Path('configs').rglob('*.py') if '_base_' not in path.parts]
found = {str(path): Config.fromfile(str(path))._cfg_dict for path in paths}
Path(sys.argv[1]).write_text(json.dumps(found))
"""
FEW_SHOT_SCRIPT = """
import json, sys
from pathlib import Path
from mmseg_custom.datasets import few_shot
lists = getattr(few_shot, 'published', None) or few_shot.generate
found = {f'{part} seed {seed}': list(lists(seed))[:count]
         for seed in few_shot.SEEDS for part, count in few_shot.FRACTIONS.items()}
Path(sys.argv[1]).write_text(json.dumps(found))
"""
DOCTOR = {'intern_vit_6b/full_tuning/upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5.py': 8,
          'intern_vit_6b/linear_probing/'
          'linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py': 1,
          'tiny/head_tuning_tiny.py': 8}  # recipe -> GPUs


# Each case returns the results of the checkout ``it``, on input files that ``other`` made.

def data(it: Checkout, other: Checkout) -> dict:
    """Draws the demo images."""
    it.run('data', 'tools/make_demo_data.py', '--out', it.folder / 'data', '--train', 8, '--val', 2)
    return files(it.folder / 'data')


def recipes(it: Checkout, other: Checkout) -> dict:
    """Resolves the recipes that ``other`` has."""
    return {path: {key: value for key, value in cfg.items() if key in SETTINGS}
            for path, cfg in it.run_code('recipes', RECIPES_SCRIPT).items()
            if (other.root / path).exists()}


def training(it: Checkout, other: Checkout) -> dict:
    """Trains in one process: everything, a linear head, a pyramid with UPerNet."""
    return {recipe: files(it.train(recipe, weights)) for recipe, weights in (
        ('full_tuning', None), ('linear_probing', other.backbone()),
        ('head_tuning', other.backbone()))}


def two_processes(it: Checkout, other: Checkout) -> dict:
    """Trains on two processes: a frozen backbone under DDP, everything under FSDP2."""
    return {'ddp': files(it.train('head_tuning', other.backbone(), ranks=2)),
            'fsdp2': files(it.train('full_tuning', ranks=2))}


def resume(it: Checkout, other: Checkout) -> dict:
    """Resumes runs of ``other`` from their middle, as if they had been killed there."""
    found = {}
    for recipe, ranks in (('full_tuning', 1), ('linear_probing', 1), ('full_tuning', 2)):
        weights = other.backbone() if recipe == 'linear_probing' else None
        work_dir = other.train(recipe, weights, ranks)
        if it is not other:
            checkpoint, = work_dir.glob(f'iter_{MIDDLE}.*')
            work_dir = it.folder / 'resumed' / work_dir.name
            work_dir.mkdir(parents=True)
            copy = shutil.copytree if checkpoint.is_dir() else shutil.copy
            copy(checkpoint, work_dir / checkpoint.name)
            it.run(f'resumed_{work_dir.name}', 'tools/train.py', it.config(recipe, weights),
                   '--work-dir', work_dir, '--auto-resume', *TRAIN_OPTIONS, ranks=ranks)
        found[work_dir.name] = content = files(work_dir)
        log = content['<time>.log.json']
        content['<time>.log.json'] = {key: line for key, line in log.items()
                                      if line['mode'] == 'val' or line['iter'] > MIDDLE}
        content.pop('curves.png', None)  # those of a resumed run lack its first half here
    return found


def labels(it: Checkout, other: Checkout) -> dict:
    """Tests checkpoints of ``other``: a whole one, and one that refers to the backbone's file."""
    small = other.train('linear_probing', other.backbone()) / f'iter_{END}.pth'
    whole = other.train('full_tuning') / f'iter_{END}.pth'
    found = {}
    for name, recipe, checkpoint, options in (
            ('plain', 'full_tuning', whole, []),
            ('augmented', 'full_tuning', whole, ['--aug-test']),
            ('small', 'linear_probing', small, ['--eval', 'mIoU', 'mBIoU'])):
        folder = it.folder / f'test_{name}'
        it.run(folder.name, 'tools/test.py', it.config(recipe), checkpoint, '--work-dir', folder,
               '--out', folder / 'results.pkl', *options)
        found[name] = files(folder)
    return found


def sweep(it: Checkout, other: Checkout) -> dict:
    """Trains three heads at once."""
    folder = it.folder / 'sweep'
    it.run('sweep', 'tools/sweep.py', it.config('linear_probing', other.backbone()), '--work-dir',
           folder, '--lr', '1e-3', '1e-2', '1e-1', *TRAIN_OPTIONS)
    return files(folder)


def cache(it: Checkout, other: Checkout) -> dict:
    """Trains on a feature cache of its own, and on a copy of that of ``other``."""
    def train(name: str) -> None:
        it.run(name, 'tools/train.py', it.config('head_tuning', other.backbone()), '--work-dir',
               it.folder / name, *TRAIN_OPTIONS, '--cfg-options', 'feature_cache.views=2',
               'feature_cache.seed=3', f'feature_cache.dir={it.folder / name}/cache')

    train('cached')
    found = {**files(it.folder / 'cached'), 'computed again': []}
    if it is not other:
        copied = it.folder / 'copied/cache'
        shutil.copytree(other.folder / 'cached/cache', copied)
        before = {path: path.stat().st_mtime_ns for path in copied.rglob('view*')}
        train('copied')
        found['computed again'] = [path.name for path in copied.rglob('view*')
                                   if path.stat().st_mtime_ns != before.get(path)]
    return found


def conversion(it: Checkout, other: Checkout) -> dict:
    """Merges checkpoints of ``other`` and converts its weights."""
    out = it.folder / 'converted'
    out.mkdir()
    small = other.train('linear_probing', other.backbone()) / f'iter_{END}.pth'
    sharded = other.train('full_tuning', ranks=2) / f'iter_{END}.dcp'
    for source, name in ((small, 'small.pth'), (small, 'small.safetensors'),
                         (sharded, 'sharded.pth')):
        it.run(f'merge_{name}', 'tools/merge_checkpoint.py', source, out / name)
    for source, name in ((other.backbone(), 'weights.pth'), (other.backbone(), 'hub'),
                         (out / 'hub', 'weights.safetensors')):
        it.run(f'convert_{name}', 'tools/convert_weights.py', source, out / name, '--num-heads', 2)
    return files(out)


def few_shot(it: Checkout, other: Checkout) -> dict:
    """Makes the few-shot lists of all fractions and seeds."""
    return it.run_code('few_shot', FEW_SHOT_SCRIPT)


def doctor(it: Checkout, other: Checkout) -> dict:
    """Predicts memory and operations of recipes on GPUs of 80 GiB."""
    found: dict[str, dict] = {}
    for recipe, gpus in DOCTOR.items():
        text = it.run(f'doctor_{len(found)}', 'tools/doctor.py', f'configs/{recipe}', '--gpus',
                      gpus, '--gpu-memory', 80, '--json', codes=(0, 1))  # 1: data is missing
        content = re.search(r'^\{$.*', text, re.MULTILINE | re.DOTALL)
        if content is None:
            raise CommandError(f'tools/doctor.py configs/{recipe}', text)
        modes = json.loads(content.group())['memory']['modes']
        found[recipe] = {mode['name']: {key: mode[key] for key in (
            'peak_bytes', 'host_bytes', 'flops', 'chosen', 'fits')} for mode in modes}
    return found


CASES: dict[str, Callable[[Checkout, Checkout], dict]] = {case.__name__: case for case in (
    data, recipes, training, two_processes, resume, labels, sweep, cache, conversion, few_shot,
    doctor)}


def files(folder: Path) -> dict[str, Any]:
    """Name -> content of the files in a folder and in those below it."""
    return {without_time(path.name): content_of(path) for path in sorted(folder.iterdir())
            if not UNSTABLE_FILES.fullmatch(path.name)}


def content_of(path: Path) -> Any:
    """What a file holds, or the hash of its bytes where their order is part of the format."""
    path = path.resolve()  # latest.pth is a link, also to a folder .dcp
    if path.suffix == '.dcp':
        with tempfile.TemporaryDirectory() as folder:
            dcp_to_torch_save(path, f'{folder}/whole.pth')
            return {'meta': torch.load(path / 'meta.pth'), **torch.load(f'{folder}/whole.pth')}
    if path.is_dir():
        return files(path)
    if path.name.endswith('.log.json'):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return {f'{line["mode"]} {line["iter"]}': line for line in lines if 'mode' in line}
    if path.suffix == '.pkl':
        return ResultsReader(path.open('rb')).load()
    if path.suffix == '.npz':
        return dict(np.load(path))
    if path.suffix == '.json':
        return json.loads(path.read_text())
    return torch.load(path) if path.suffix == '.pth' else hashlib.sha256(
        path.read_bytes()).hexdigest()


class Record(tuple):
    """The record of an image in a file of results, whatever class of a checkout wrote it."""


class ResultsReader(pickle.Unpickler):
    """Reads files of results without the package."""

    def find_class(self, module: str, name: str) -> Any:
        """Takes ``Record`` for the package's own class."""
        return Record if module.startswith('mmseg_custom') else super().find_class(module, name)


def without_time(text: str) -> str:
    """Replaces timestamps of file names."""
    return re.sub(r'\d{8}_\d{6}', '<time>', text)


def clean(value: Any, checkouts: list[Checkout]) -> Any:
    """Removes what differs between two runs of one checkout: times, and the names of folders."""
    if isinstance(value, Record):
        value = {'areas': list(value), **vars(value)}
    if isinstance(value, dict):
        return {clean(str(key), checkouts): clean(part, checkouts) for key, part in value.items()
                if key not in UNSTABLE}
    if isinstance(value, (list, tuple)):
        return [clean(part, checkouts) for part in value]
    if isinstance(value, str):
        for it in checkouts:
            for path in (it.root, it.folder / 'resumed', it.folder):
                value = value.replace(str(path), '<folder>')
        return without_time(value)
    return value


def differences(a: Any, b: Any, path: str = '') -> Iterator[tuple[str, str, str]]:
    """(path, value of the other, value of this) of all that is not the same."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            yield from differences(a.get(key, 'missing'), b.get(key, 'missing'), f'{path}/{key}')
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (one, two) in enumerate(zip(a, b)):
            yield from differences(one, two, f'{path}/{i}')
    elif bits(a) != bits(b):
        yield path, show(a, b), show(b, a)


def bits(value: Any) -> Any:
    """What equal values have in common: type, shape and bits."""
    if isinstance(value, Tensor):
        octets = value.detach().contiguous().reshape(-1).view(torch.uint8)
        return value.dtype, value.shape, octets.numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    return repr(value)


def show(value: Any, other: Any) -> str:
    """A value in short; of an array the first element that differs from the other's."""
    if not isinstance(value, (Tensor, np.ndarray)):
        return repr(value)[:100]
    text = f'{value.dtype} {tuple(value.shape)}'
    if getattr(other, 'shape', None) != value.shape:
        return text
    mine, theirs = value.reshape(-1).tolist(), other.reshape(-1).tolist()
    unequal = [i for i, (x, y) in enumerate(zip(mine, theirs)) if repr(x) != repr(y)]
    return text + ''.join(f', {len(unequal)} differ, [{i}] = {mine[i]}' for i in unequal[:1])


def compare(name: str, this: Checkout, other: Checkout) -> dict[str, Any]:
    """Runs a case in both checkouts, one after another."""
    result: dict[str, Any] = dict(failed='', differences=[], intended=[])
    try:
        results = [clean(CASES[name](it, other), [other, this]) for it in (other, this)]
    except CommandError as error:
        return {**result, 'failed': f'{error}\n'}
    for found in differences(*results):
        key = re.split('[/.]', found[0])[-1]
        result['intended' if key in INTENDED else 'differences'].append(found)
    return result


def print_case(name: str, result: dict[str, Any], seconds: float) -> None:
    """Prints a line of a case, and what differs first."""
    found, intended = result['differences'], result['intended']
    text = 'failed' if result['failed'] else f'{len(found)} differ' if found else 'same'
    if intended:
        text += f' (intended: {len(intended)} x {", ".join(INTENDED)})'
    print(f'{name:<15}{seconds:>6.1f} s  {text}\n{result["failed"]}', end='', flush=True)
    for path, before, now in found[:SHOWN]:
        print(f'    {path}\n        other: {before}\n        this:  {now}', flush=True)


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('other', type=Path, help='folder of the other checkout')
    parser.add_argument('--only', nargs='+', choices=CASES, default=list(CASES), metavar='CASE',
                        help='of %(choices)s')
    parser.add_argument('--keep', type=Path, help='new folder in which all results are kept')
    parser.add_argument('--out', help='also write the differences to this JSON file')
    args = parser.parse_args()
    folder = (args.keep or Path(tempfile.mkdtemp())).resolve()
    # Names of one length, as paths in files change the size of their headers.
    other, this = (Checkout(root.resolve(), folder / name, folder / 'old/data')
                   for root, name in ((args.other, 'old'), (ROOT, 'new')))
    found = {}
    try:
        for name in dict.fromkeys(('data', *args.only)):
            start = time.monotonic()
            found[name] = compare(name, this, other)
            print_case(name, found[name], time.monotonic() - start)
    finally:
        other.close()
        this.close()
        if not args.keep:
            shutil.rmtree(folder)
    if args.out:
        Path(args.out).write_text(json.dumps(found, indent=1))
    sys.exit(any(result['failed'] or result['differences'] for result in found.values()))


if __name__ == '__main__':
    main()
