"""The time that training waits for a checkpoint: written at once, and in the background.

The runner of tools/train.py trains the full-tuning recipe of InternViT-6B, of which it has as many
blocks as the machine takes (on the CPU at a third of the width, in crops of 112 pixels), and saves
weights and moments: in turns at once and in the background, which both end flushed to the disk of
the temporary folder (TMPDIR). Iterations are timed before a save, and while one is written. The
limit is a copy of so many bytes into memory that is there already, pinned on a GPU's host.
"""
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from mmcv import Config
from mmcv.parallel import DataContainer
from mmcv.runner import BaseRunner

from benchmarks.context import Context, at_most
from benchmarks.networks import IMAGES, crop_of, fill, random_images, recipe
from benchmarks.registry import benchmark
from mmseg_custom.checkpoint.staging import HostCopies
from mmseg_custom.distributed.options import AUTO
from mmseg_custom.distributed.parallelize import parallelize
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.build import build_network, compute_dtype, master_dtype
from mmseg_custom.engine.checkpoint_writer import Outcome
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.training_runner import build_training_runner
from mmseg_custom.files import SaveError

ROUNDS, ITERATIONS = 4, 2  # saves of each kind; iterations before each
BLOCKS, CPU_BLOCKS = 8, 4  # 12 GB, and 0.7 GB, of weights and moments with the heads


class Batches:
    """The same batch in every iteration."""

    epoch = 0

    def __init__(self, crop: tuple[int, int], classes: int):
        labels = torch.randint(classes, (IMAGES, 1, *crop))
        self._batch = dict(
            img=DataContainer([random_images('cpu', IMAGES, 3, *crop)], stack=True),
            gt_semantic_seg=DataContainer([labels], stack=True),
            img_metas=DataContainer([[dict(flip=False)] * IMAGES], cpu_only=True))

    def __next__(self) -> dict:
        return self._batch

    def __len__(self) -> int:
        return 10 ** 4


def config_of(run: Context) -> Config:
    """Returns the recipe with the blocks, and on the CPU the width, that are measured."""
    cfg = recipe('full_tuning', run)
    if run.tiny:
        return cfg
    blocks = BLOCKS if run.on_gpu else CPU_BLOCKS
    cfg.model.backbone.update(depth=blocks, out_indices=[blocks // 4 * i - 1 for i in range(1, 5)])
    cfg.optimizer.paramwise_cfg.num_layers = blocks
    if not run.on_gpu:
        width, channels = 1024, 64
        cfg.model.backbone.update(embed_dim=width, num_heads=8, img_size=112)
        cfg.model.decode_head.update(in_channels=[width] * 4, channels=channels)
        cfg.model.auxiliary_head.update(in_channels=width, channels=channels)
        cfg.model.test_cfg.update(crop_size=(112, 112), stride=(56, 56))
    return cfg


def build(run: Context, work_dir: str) -> tuple[BaseRunner, Batches]:
    """Builds the runner, without hooks that save, and its batches."""
    cfg = config_of(run)
    cfg.update(work_dir=work_dir, log_config=dict(
        interval=10 ** 6, hooks=[dict(type='TextLoggerHook', by_epoch=False)]))
    model = build_network(cfg, on_meta=True)
    apply_precision(model, compute_dtype(cfg, model), run.device, master_dtype=master_dtype(cfg))
    model = parallelize(fill(model, run.device), run.device, AUTO)
    classes = cfg.model.decode_head.num_classes
    names = SimpleNamespace(CLASSES=('class',) * classes, PALETTE=[[0, 0, 0]] * classes)
    options = Run(cfg, RunOptions(device=run.device), AUTO, Batch(IMAGES), data=dict(train=names),
                  timestamp='benchmark')
    logger = logging.getLogger('benchmarks.saves')
    logger.setLevel(logging.WARNING)
    runner = build_training_runner(options, model, logger, checkpoint_config=None)
    runner.call_hook('before_run')
    runner.call_hook('before_epoch')
    return runner, Batches(crop_of(cfg), classes)


class Saves:
    """Saves in turns, and the times around them.

    Args:
        run: Context of the case.
        folder: Folder of the checkpoints; each save replaces the one before.
    """

    def __init__(self, run: Context, folder: str):
        self.run, self.folder = run, folder
        self.runner, self.batches = build(run, folder)
        self.iterations: list[float] = []
        self.meanwhile: list[float] = []  # iterations while a checkpoint is written
        self.outcomes: dict[bool, list[Outcome]] = {False: [], True: []}

    def iterate(self) -> float:
        """Runs an iteration; returns its seconds."""
        began = time.perf_counter()
        self.runner.train(self.batches)
        if self.run.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def save(self, background: bool) -> None:
        """Saves a checkpoint, and trains until it is written."""
        self.runner.checkpoint_writer.background = background
        found = self.outcomes[background]
        before = len(found)
        self.runner.save_checkpoint(self.folder, 'iter_0.pth', create_symlink=False,
                                    finished=found.append)
        while len(found) == before:
            self.meanwhile.append(self.iterate())

    def measure(self) -> None:
        """Alternates between the two kinds of saves, as long as there is time."""
        for _ in range(3):
            self.iterate()
        for _ in range(1 if self.run.tiny else ROUNDS):
            began = time.monotonic()
            for background in (False, True):
                self.iterations += [self.iterate() for _ in range(ITERATIONS)]
                self.save(background)
            if 2 * time.monotonic() - began > time.monotonic() + self.run.time_left():
                break

    def waited(self, background: bool) -> Iterator[float]:
        """Yields the seconds that training waited for each save."""
        for outcome in self.outcomes[background]:
            if outcome.error is not None:
                raise outcome.error
            if background and outcome.wrote is None:
                self.run.skip('the host has no memory for a copy')
            yield outcome.waited


def measure_copies(run: Context) -> list[float]:
    """Measures copies of tensors to the host; returns the seconds a byte of those into kept memory.

    Memory that is new is first filled by the system, and pinned on a GPU's host.
    """
    nbytes = 2**22 if run.tiny else 2**28
    content = [torch.ones(nbytes // 64, device=run.device) for _ in range(16)]
    kept = HostCopies(pinned=run.on_gpu)
    samples = run.measure({'kept': lambda: kept.copy(content),
                           'new': lambda: HostCopies(pinned=run.on_gpu).copy(content)}, seconds=2)
    run.row('copy of 256 MiB to the host', 'ms', samples['kept'],
            {'into new memory': samples['new']})
    return [seconds / nbytes for seconds in samples['kept']]


@benchmark('Time that training waits for a checkpoint', minutes=6, order=55)
def case(run: Context) -> None:
    """Measures saves at once and in the background, and iterations meanwhile."""
    copies = measure_copies(run)
    with tempfile.TemporaryDirectory() as folder:
        saves = Saves(run, folder)
        try:
            saves.measure()
            first, *later = saves.waited(True)
            at_once = list(saves.waited(False))
        except SaveError as error:
            run.skip(f'{error}: set TMPDIR to a folder on another disk')
        nbytes = Path(folder, 'iter_0.pth').stat().st_size
        iteration = statistics.median(saves.iterations)
        run.row('time that training waits for a save', 's', later or [first], {'at once': at_once},
                limit=[seconds * nbytes for seconds in copies], targets=[at_most('at once', 0.2)])
        run.row('iteration while a checkpoint is written', 'ms', saves.meanwhile or [iteration],
                {'no checkpoint is written': saves.iterations})
        run.fact(
            bytes_of_the_checkpoint=nbytes, first_wait_in_seconds=round(first, 3),
            written_in_seconds=[round(each.wrote or 0, 2) for each in saves.outcomes[True]],
            iterations_that_a_save_costs=round(statistics.median(later or [first]) / iteration, 2),
            iterations_that_a_save_at_once_costs=round(statistics.median(at_once) / iteration, 2),
            temporary_folder=tempfile.gettempdir())
