"""The tiny transfer task: what a backbone gains by being tuned, and with how many of its weights.

A tiny backbone is trained on drawn outdoor scenes, all of it, for long. It is then tuned to label
rooms, whose classes and textures it has not seen, on few images and for a short time: the head
alone, the last blocks, adapters, or everything. The head is the linear one, the same for all, and
so are iterations, images, crops and, by seed, their order.

    task = prepare(run)
    rates = task.choose_rates(METHODS)
    scores = task.score([Job(METHODS['LoRA'], rates['LoRA'], seed) for seed in SEEDS])

A run is one of tools/train.py, in a process of one thread; as many run at once as there are cores.
The data and the pretrained backbone stay in the folder of the benchmarks' results.
"""
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .context import Context
from .execution import ROOT
from .tool_runs import run_tool
from .transfer_data import draw

Settings = Mapping[str, object]  # of the config, by keys with dots

CONFIG = 'benchmarks/transfer_config.py'
METHODS: dict[str, Settings] = {
    'linear probe': {'model.backbone.freeze_vit': True, 'optimizer.weight_decay': 0.0,
                     'optimizer.paramwise_cfg.layer_decay_rate': 1.0},
    'last 2 of 6 blocks': {'model.backbone.train_last': 2},
    'LoRA, r=8': {'model.backbone.adapt.type': 'lora', 'model.backbone.adapt.r': 8,
                  'model.backbone.adapt.alpha': 16},
    'full tuning': {},
}
SEEDS = range(5)
SEED_OF_RATES = 100  # not one of SEEDS
SEED_OF_PRETRAINING = 1763604409


@dataclass(frozen=True)
class Size:
    """Numbers of images and iterations.

    Attributes:
        outdoor: Images by part that the backbone is pretrained on.
        indoor: Images by part that it is tuned on: 'val' chooses learning rates, 'test' is scored.
        pretraining: Iterations of the pretraining.
        tuning: Iterations of each run.
        rates: Learning rates that one is chosen of.
    """
    outdoor: Mapping[str, int]
    indoor: Mapping[str, int]
    pretraining: int
    tuning: int
    rates: tuple[float, ...] = tuple(
        value * 10. ** power for power in (-4, -3, -2, -1) for value in (1, 3))


FULL = Size(dict(train=480, val=48), dict(train=96, val=48, test=96), 800, 150)
TINY = Size(dict(train=8, val=2), dict(train=8, val=2, test=2), 2, 2, (3e-3,))


@dataclass(frozen=True)
class Job:
    """A run that tunes the backbone.

    Attributes:
        settings: What is trained: one of ``METHODS``, with further settings if wanted.
        rate: Learning rate.
        seed: Seed of the head's first weights, of crops and of their order.
        part: Part of the rooms that it is scored on.
        keep: File that what was trained of the backbone is written to.
    """
    settings: Settings
    rate: float
    seed: int
    part: str = 'test'
    keep: Path | None = None


@dataclass(frozen=True)
class Transfer:
    """The task: data and the pretrained backbone.

    Attributes:
        rooms: Description of the data.
        backbone: File of the pretrained backbone.
        size: Numbers of images and iterations.
        device: 'cuda' or 'cpu'.
        pretrained_miou: mIoU in percent of the pretraining, on outdoor images.
    """
    rooms: Path
    backbone: Path
    size: Size
    device: str
    pretrained_miou: float = field(compare=False)

    def score(self, jobs: Iterable[Job]) -> list[float]:
        """Runs jobs, several at a time; returns the mIoU of each, in percent."""
        with ThreadPoolExecutor(processes()) as pool:
            return list(pool.map(self._score, jobs))

    def choose_rates(self, methods: Mapping[str, Settings]) -> dict[str, float]:
        """Chooses a learning rate for each method, on images and with a seed for that alone.

        From the middle of ``size.rates`` it goes on in the direction in which the mIoU grows, while
        it grows.
        """
        with ThreadPoolExecutor(processes()) as pool:
            return dict(zip(methods, pool.map(self._choose_rate, methods.values())))

    def _choose_rate(self, settings: Settings) -> float:
        rates = self.size.rates
        found: dict[int, float] = {}

        def score(position: int) -> float:
            if not 0 <= position < len(rates):
                return float('-inf')
            if position not in found:
                job = Job(settings, rates[position], SEED_OF_RATES, 'val')
                found[position] = self._score(job)
            return found[position]

        best = (len(rates) - 1) // 2
        for step in (1, -1) if len(rates) > 1 else ():
            while score(best + step) > score(best):
                best += step
        return rates[best]

    def _score(self, job: Job) -> float:
        return _train({
            'data.train.description': self.rooms, 'data.val.description': self.rooms,
            'data.val.part': job.part, 'model.backbone.pretrained': self.backbone,
            'optimizer.lr': job.rate, **job.settings}, self.size.tuning, job.seed, self.device,
            job.keep)


def prepare(run: Context) -> Transfer:
    """Draws the data and pretrains the backbone, unless both are there."""
    size = TINY if run.tiny else FULL
    out = run.path.parent if run.path else ROOT / 'work_dirs/benchmarks'
    folder = out / ('tiny_transfer' if run.tiny else 'transfer')
    outdoor = draw(folder / 'outdoor', 'outdoor', 1, size.outdoor)
    rooms = draw(folder / 'indoor', 'indoor', 2, size.indoor)
    backbone, record = folder / 'backbone.pth', folder / 'backbone.json'
    if not record.exists():
        miou = _train({'data.train.description': outdoor, 'data.val.description': outdoor,
                       'optimizer.lr': 3e-3}, size.pretraining, SEED_OF_PRETRAINING, run.device,
                      backbone)
        record.write_text(json.dumps(dict(miou=miou)))
    return Transfer(rooms, backbone, size, run.device, json.loads(record.read_text())['miou'])


def processes() -> int:
    """Returns how many runs there are at a time."""
    return max(1, min(4, os.cpu_count() or 1))


def _train(settings: Settings, iterations: int, seed: int, device: str,
           keep: Path | None = None) -> float:
    """Trains and evaluates in a process of its own; returns the mIoU in percent.

    Args:
        settings: Settings of the config.
        iterations: Number of iterations.
        seed: Seed.
        device: 'cuda' or 'cpu'.
        keep: File that the backbone is written to.

    Raises:
        RuntimeError: If it failed, with the end of what it said.
    """
    settings = {**settings, **dict.fromkeys(
        ('runner.max_iters', 'checkpoint_config.interval', 'evaluation.interval'), iterations)}
    with tempfile.TemporaryDirectory() as folder:
        run_tool('tools/train.py', CONFIG, '--device', device, '--seed', seed, '--work-dir', folder,
                 '--cfg-options', *(f'{key}={value}' for key, value in settings.items()))
        if keep:
            state = torch.load(f'{folder}/latest.pth', map_location='cpu')['state_dict']
            torch.save({name.removeprefix('backbone.'): tensor for name, tensor in state.items()
                        if name.startswith('backbone.')}, keep)
        return round(100 * _last_miou(Path(folder).glob('*.log.json')), 2)


def _last_miou(logs: Iterable[Path]) -> float:
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return [line['mIoU'] for line in lines if 'mIoU' in line][-1]
