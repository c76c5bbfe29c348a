"""One head of a sweep, with its own model, optimizer, runner and hooks."""
import copy
import logging
import math
import os
import os.path as osp
from collections.abc import Iterator

from mmcv.runner import BaseRunner, get_dist_info
from mmcv.runner.hooks import LoggerHook
from mmseg.models import build_segmentor
from torch import Tensor, nn

from ...checkpoint import load_segmentor
from ...checkpoint.checkpoint import open_checkpoint
from ...checkpoint.work_dir import remove_leftovers
from ...distributed.launch import is_first_of_node
from ...distributed.parallelize import parallelize
from ...distributed.precision import apply_precision
from ...files import SaveError, atomic_write
from ...logs import MAIN, quiet
from .. import best
from ..build import compute_dtype, head_dtype, init_heads, master_dtype
from ..determinism import settle_determinism
from ..divergence import check_finite
from ..evaluation_hook import SegEvalHook, rewound
from ..hooks import SegCheckpointHook, remove_older
from ..last_save import LastSave, save_at_stop
from ..log_files import LogFile
from ..run import Run
from ..tracking.attach import attach_trackers
from ..training_runner import build_evaluation, build_training_runner, register_custom_hooks
from ..used_folder import HEAD_CONFIG
from .backbone import SharedBackbone, TrainedPart
from .probe_runner import LossHook, ProbeRunner
from .records import record_scores


class ProbeEvalHook(SegEvalHook):
    """Evaluates the results of one head, from a pass over the images for all heads.

    Attributes:
        score: mIoU of the last evaluation, on rank 0.
    """

    score: float | None = None

    def before_epoch(self, runner: BaseRunner) -> None:
        """Does nothing: the sweep repeats an interrupted evaluation."""

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Does nothing: the sweep evaluates all heads in one pass over the images."""

    def evaluate(self, runner: BaseRunner, results: list) -> float | None:
        """Returns the score; records the metrics before the evaluation counts as finished."""
        score = super().evaluate(runner, results)
        self.score = runner.log_buffer.output.get('mIoU')
        try:
            record_scores(runner.work_dir, runner.iter + 1, runner.log_buffer.output)
        except SaveError as error:
            runner.logger.error('the report lacks iteration %d: %s', runner.iter + 1, error)
        return score

    def take(self, runner: BaseRunner, results: list) -> None:
        """Evaluates the results of a pass over the images, and logs the metrics."""
        with rewound(runner):
            super().take(runner, results)
            for hook in runner.hooks:
                if isinstance(hook, LoggerHook) and runner.log_buffer.ready:
                    hook.log(runner)
            runner.log_buffer.clear_output()
            self.pictures = []  # of many heads they would take memory


class Probe:
    """One head of a sweep, trained one iteration at a time.

    Args:
        name: Name of its folder.
        run: Run of this head, with validation data if it is to be evaluated.
        shared: Frozen backbone.
        checkpoint: Path of the checkpoint to resume from.
        last_save: How the last checkpoint is insisted on.

    Attributes:
        loss: Loss of the last iteration; a tensor while it is on a GPU.
        losses: Hook that watches it.
    """

    loss: float | Tensor

    def __init__(self, name: str, run: Run, shared: SharedBackbone, checkpoint: str | None = None,
                 last_save: LastSave | None = None):
        self.name, self.run, self._last_save = name, run, last_save or LastSave()
        self.loss = math.nan
        logger = _logger(name, run)
        opened = open_checkpoint(checkpoint) if checkpoint else None
        # If each head removed its older checkpoints, a kill could leave two heads without a
        # checkpoint of a common iteration. The sweep removes them once all heads have saved.
        saving = dict(run.cfg.get('checkpoint_config') or {})
        self._kept, self._interval = saving.pop('max_keep_ckpts', -1), saving.get('interval', 1)
        with quiet('mmcv', MAIN):
            model = _build(run, shared)
            if opened is not None:
                load_segmentor(model, opened, verify=is_first_of_node())
            model.backbone = TrainedPart(model.backbone, shared)
            model.CLASSES, model.PALETTE = run.data['train'].CLASSES, run.data['train'].PALETTE
            self.positions = model.backbone.positions
            model = parallelize(model, run.device, run.engine,
                                run.cfg.get('find_unused_parameters', False),
                                master_dtype=master_dtype(run.cfg))
            if saving.get('type', 'CheckpointHook') == 'CheckpointHook':
                saving['background'] = False  # All heads have saved, once the last one has.
            self.runner = build_training_runner(
                run, model, logger, self._last_save, type=ProbeRunner.__name__,
                checkpoint_config=saving if run.cfg.get('checkpoint_config') else None)
        self.runner.defers_log = run.device == 'cuda'
        self.losses = LossHook(stops=not run.options.allow_nonfinite)
        self.runner.register_hook(self.losses, priority='HIGH')  # before the optimizer hook
        self.evaluation: ProbeEvalHook | None = None
        if 'val' in run.data:
            self.evaluation = build_evaluation(run, self.runner, ProbeEvalHook)
            self.runner.register_hook(self.evaluation, priority='LOW')
        register_custom_hooks(self.runner, run)
        attach_trackers(self.runner, run)
        if opened is not None:
            self.runner.restore(opened)
        elif self.runner.rank == 0 and not run.options.overwrite:
            best.remove(run.work_dir)

    @property
    def model(self) -> nn.Module:
        """The wrapped segmentor."""
        return self.runner.model

    def start(self) -> None:
        """Calls the hooks before the first iteration."""
        self.runner.call_hook('before_run')
        self.runner.call_hook('before_epoch')

    def step(self, batches: 'IterationBatches') -> None:
        """Trains for one iteration on batches with the feature maps of all layers.

        Raises:
            Diverged: If the loss is known not to be finite, with unchanged weights; or, before
                they are saved, the weights.
        """
        self.runner.train(batches.for_positions(self.positions))
        self.loss, self.runner.outputs = self.losses.loss, None

    def check(self) -> None:
        """Checks the last iteration before it is saved or evaluated; called on all ranks.

        Raises:
            Diverged: If a number or a weight is not finite.
        """
        with rewound(self.runner):
            check_finite(self.runner)

    def save(self) -> None:
        """Saves a checkpoint of the last iteration, on rank 0.

        Raises:
            SaveError: If it could not be written.
        """
        with rewound(self.runner):
            save_at_stop(self.runner, self._last_save)

    def remove_older(self) -> None:
        """Removes older checkpoints; called once all heads have saved the last iteration."""
        done = self.runner.iter
        if self._kept > 0 and self.runner.rank == 0 and done % max(self._interval, 1) == 0:
            for hook in self.runner.hooks:
                if isinstance(hook, SegCheckpointHook):
                    remove_older(hook.out_dir, done, self._kept)

    def finish(self) -> None:
        """Calls the hooks after the last iteration.

        Raises:
            SaveError: If the weights of the last iteration are on no disk.
        """
        self.runner.call_hook('after_epoch')
        self.runner.call_hook('after_run')
        self.close()

    def close(self) -> None:
        """Closes the log."""
        for handler in list(self.runner.logger.handlers):
            handler.close()
            self.runner.logger.removeHandler(handler)


class IterationBatches:
    """Batches of an iteration, with feature maps, for one head after another.

    Args:
        batches: Batches with ``feats``, the feature maps of all layers.
        length: Number of batches in a pass over the data.
    """

    epoch = 0

    def __init__(self, batches: list[dict], length: int):
        self._batches, self._length = batches, length
        self._next: Iterator[dict] = iter(())

    @property
    def samples(self) -> int:
        """Number of images."""
        return sum(len(batch['img_metas']) for batch in self._batches)

    def read_by(self, positions: list[int]) -> list[dict]:
        """Returns the batches with the feature maps that a head reads."""
        return [{**batch, 'feats': [batch['feats'][i] for i in positions]}
                for batch in self._batches]

    def for_positions(self, positions: list[int]) -> 'IterationBatches':
        """Restarts at the first batch, with the feature maps that a head reads."""
        self._next = iter(self.read_by(positions))
        return self

    def __next__(self) -> dict:
        return next(self._next)

    def __len__(self) -> int:
        return self._length


def _build(run: Run, shared: SharedBackbone) -> nn.Module:
    """Builds the segmentor as a single run would, on the shared backbone."""
    cfg = run.cfg
    options = copy.deepcopy(cfg.model)
    options.backbone.pretrained = shared.network
    shared.restore_generator()
    model = build_segmentor(options, train_cfg=cfg.get('train_cfg'), test_cfg=cfg.get('test_cfg'))
    init_heads(model)
    apply_precision(model, compute_dtype(cfg, model), run.device, master_dtype=master_dtype(cfg),
                    head_dtype=head_dtype(cfg, model))
    settle_determinism(model)
    return model


def _logger(name: str, run: Run) -> logging.Logger:
    """Opens the log of a head in its folder, on rank 0."""
    logger = logging.getLogger(f'mmseg.sweep.{name}')
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if get_dist_info()[0] > 0:
        logger.setLevel(logging.ERROR)
        return logger
    os.makedirs(run.work_dir, exist_ok=True)
    remove_leftovers(run.work_dir)
    atomic_write(osp.join(run.work_dir, HEAD_CONFIG), run.cfg.pretty_text)
    handler = LogFile(osp.join(run.work_dir, f'{run.timestamp}.log'))
    handler.setFormatter(logging.Formatter('%(asctime)s - %(levelname)s - %(message)s'))
    logger.addHandler(handler)
    return logger
