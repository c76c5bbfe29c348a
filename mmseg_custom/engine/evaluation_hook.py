"""Evaluation during training, and the record of the best score."""
import os.path as osp
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from mmcv.runner import BaseRunner
from mmcv.runner.hooks import LoggerHook
from mmseg.core import EvalHook
from torch import nn
from torch.utils.data import DataLoader

from ..checkpoint.work_dir import remove_checkpoint
from ..datasets.concatenated import ConcatTestDataset
from ..distributed.collectives import broadcast_batch_norm, broadcast_from_rank0
from ..distributed.parallelize import is_sharded
from ..errors import InputError
from ..evaluation.areas import Areas
from ..evaluation.metric_names import BOUNDARY, means_of, measures_as_mmseg, metrics_of
from ..evaluation.metrics import as_floats, boundary_metrics, pre_eval
from ..evaluation.per_image import PerImage
from ..evaluation.tables import percent, summarize
from ..files import SaveError
from ..logs import saying
from . import best
from .blame import reading
from .checkpoint_writer import Outcome, save_checkpoint, wait_for_checkpoint
from .divergence import check_finite
from .ema import averaged
from .iteration_timer import TimedEvaluation, evaluating
from .predict import Keep, predict_all
from .prediction_panel import Picture, PredictionPanel, Shown, split
from .preemption import PreemptionHook
from .stop_signals import StopRequested


class SegEvalHook(EvalHook, TimedEvaluation):
    """Evaluates on all ranks, persists the best score across restarts, and drops NaN classes.

    Scores are floats, because PyTorch 2.6 and newer load checkpoints with ``weights_only=True``,
    which refuses numpy scalars: with a numpy score, no later checkpoint could be read.

    Args:
        loader: Loader of the validation data.
        device: Device of the model, 'cuda' or 'cpu'.
        broadcast_bn_buffer: Whether the ranks evaluate with the batch norm statistics of rank 0.
        tmpdir: Accepted for mmseg's configs: results are gathered without files.
        gpu_collect: Accepted for mmseg's configs, see ``tmpdir``.
        preemption: Hook that stops the run, also in an evaluation.
        show_images: Number of images that trackers get a picture of at each evaluation, spread
            over the data set; None for as many as the trackers ask for.
        **options: Options of mmseg's ``EvalHook`` and of the data set's ``evaluate``.

    Attributes:
        show_images: Number of images that trackers get a picture of.
        pictures: Pictures of the last evaluation, on rank 0.
        evaluations: Number of finished evaluations.
    """

    best_ckpt_path: str | None
    evaluations = 0
    _saves_best = False  # whether the checkpoint of a best score is being written

    def __init__(self, loader: DataLoader, device: str, broadcast_bn_buffer: bool = True,
                 tmpdir: str | None = None, gpu_collect: bool = False,
                 preemption: PreemptionHook | None = None, show_images: int | None = None,
                 **options):
        super().__init__(loader, **options)
        self.show_images = show_images
        self.pictures: list[Picture] = []
        self._preemption = preemption
        self.metrics = metrics_of(options)
        self.device, self.broadcast_bn_buffer = device, broadcast_bn_buffer

    def before_epoch(self, runner: BaseRunner) -> None:
        """Repeats the evaluation that was due when the run was interrupted."""
        if not self.is_due(runner):
            return
        runner.logger.info('the evaluation of iteration %d was not finished: it is repeated now',
                           runner.iter)
        with rewound(runner):
            self._do_evaluate(runner)
            for hook in runner.hooks:
                if isinstance(hook, LoggerHook) and runner.log_buffer.ready:  # on rank 0
                    hook.log(runner)

    def is_due(self, runner: BaseRunner) -> bool:
        """Returns whether the evaluation of the last iteration is still due."""
        if self.by_epoch or runner.iter == 0 or getattr(runner, 'evaluated', None) == runner.iter:
            return False
        with rewound(runner):
            return self._should_evaluate(runner)

    def _do_evaluate(self, runner: BaseRunner) -> None:
        if self._should_evaluate(runner):
            check_finite(runner)
            with evaluating(runner), reading('model, data.val or evaluation',
                                             'fails in the evaluation'):
                results, = self._predict_one(runner)
                self.latest_results, _ = split(results)
                self.take(runner, results)

    def _predict_one(self, runner: BaseRunner) -> list[list]:
        """Predicts with the model of a run, which stops the run if it was signalled."""
        preemption = self._preemption
        try:
            with averaged(runner):
                return self.predict([runner.model],
                                    preemption=preemption and preemption.preemption)
        except StopRequested as request:
            assert preemption is not None
            preemption.stop(runner, request.signal)

    def predict(self, models: Sequence[nn.Module], **options) -> list[list]:
        """Predicts the validation data with each model.

        Args:
            models: Wrapped segmentors.
            **options: Options of :func:`.predict.predict_all`.

        Returns:
            Results of each model; on rank 0, those of the whole data set.
        """
        if self.broadcast_bn_buffer:
            for model in models:
                broadcast_batch_norm(model)
        options.setdefault('description', 'evaluation')
        return [found.in_order() for found in
                predict_all(models, self.dataloader, self.device, self._keep(), **options)]

    def _keep(self) -> Keep | None:
        """Returns the function that turns labels into what the metrics need; None keeps them."""
        keep = self._keep_for_metrics()
        return self._panel.keeping(keep) if self.show_images else keep

    def _keep_for_metrics(self) -> Keep | None:
        dataset = self.dataloader.dataset
        if BOUNDARY in self.metrics:
            return partial(pre_eval, dataset, boundary=True)
        if self.pre_eval and measures_as_mmseg(type(dataset)):
            return Areas(dataset)
        return (lambda labels, indices: dataset.pre_eval(labels, indices=indices)
                ) if self.pre_eval else None

    @property
    def _panel(self) -> PredictionPanel:
        return PredictionPanel(self.dataloader.dataset, self.show_images or 0)

    def _draw(self, runner: BaseRunner, shown: Sequence[Shown]) -> list[Picture]:
        """Draws the pictures of an evaluation; what fails is a warning."""
        try:
            return self._panel.pictures(shown)
        except (InputError, OSError, AttributeError) as error:  # the last: data of a plugin
            runner.logger.warning('evaluation.show_images=%s: no pictures (%s)', self.show_images,
                                  error)
            return []

    def take(self, runner: BaseRunner, results: list) -> None:
        """Evaluates results, logs the metrics and saves the best checkpoint.

        Args:
            runner: Runner of the model.
            results: Results of the whole data set on rank 0; ignored on other ranks.
        """
        results, shown = split(results)
        score = None
        runner.log_buffer.clear()
        if runner.rank == 0:
            runner.log_buffer.output['eval_iter_num'] = len(self.dataloader)
            score = self.evaluate(runner, results)
            self.pictures = self._draw(runner, shown)
        sharded = is_sharded(runner.model)
        if sharded:  # All ranks save.
            score = broadcast_from_rank0(score)
        if self.save_best and (sharded or runner.rank == 0) and score is not None:
            self._save_ckpt(runner, score)
            best_score = runner.meta['hook_msgs'].get('best_score')
            if runner.rank == 0 and best_score is not None:
                # Loggers with a summary show the last value of a name.
                runner.log_buffer.output[f'best_{self.key_indicator}'] = best_score
        if not self._saves_best:
            self._persist(runner, runner.iter + 1)
        self.evaluations += 1

    def _init_rule(self, rule: str | None, key_indicator: str) -> None:
        """Treats higher values as better for metrics that mmcv does not know."""
        try:
            super()._init_rule(rule, key_indicator)
        except ValueError:
            super()._init_rule('greater', key_indicator)

    def evaluate(self, runner: BaseRunner, results: list) -> float | None:
        """Computes the metrics, and returns the score of the key indicator.

        Raises:
            InputError: If the data set does not give it.
        """
        with saying(f'computing the metrics of {len(results)} images'):
            values = as_floats(self._measure(runner, results))
        runner.logger.info('evaluation after iteration %d: %s', runner.iter + 1,
                           self._describe(values))
        output = runner.log_buffer.output
        # NaN: the class is neither in the ground truth nor predicted.
        output.update({name: value for name, value in values.items() if value == value})
        runner.log_buffer.ready = True
        if self.save_best is None or not values:
            return None
        if self.key_indicator == 'auto':
            self._init_rule(self.rule, next(iter(values)))
        if self.key_indicator not in values:
            raise InputError(f'evaluation.save_best={self.save_best!r}: the data set gives '
                             f'{", ".join(means_of(values))}')
        score = float(values[self.key_indicator])
        if score != score:
            runner.logger.warning('%s is NaN: no pixel is of the class, in the ground truth or '
                                  'predicted; no best checkpoint is saved', self.key_indicator)
        return score

    def _describe(self, values: Mapping[str, float]) -> str:
        dataset = self.dataloader.dataset
        folders = [dataset.folder(number) for number in range(len(dataset.datasets))] if isinstance(
            dataset, ConcatTestDataset) else ()
        return summarize(values, dataset.CLASSES or (), folders=folders)

    def _measure(self, runner: BaseRunner, results: list) -> dict[str, float]:
        dataset = self.dataloader.dataset
        if BOUNDARY not in self.metrics:
            return dataset.evaluate(results, logger=runner.logger, **self.eval_kwargs)
        options = {name: value for name, value in self.eval_kwargs.items() if name != 'metric'}
        others = [name for name in self.metrics if name != BOUNDARY] or ['mIoU']
        values = dataset.evaluate(results, metric=others, logger=runner.logger, **options)
        parts = zip(dataset.datasets, dataset.split(results)) if isinstance(
            dataset, ConcatTestDataset) else ()
        of_parts = {f'{number}_{name}': value for number, (part, own) in enumerate(parts)
                    for name, value in boundary_metrics(part, PerImage.of(own)).items()}
        return {**values, **boundary_metrics(dataset, PerImage.of(results)), **of_parts}

    def _persist(self, runner: BaseRunner, done: int) -> None:
        """Records the best score for a run that is resumed after an iteration.

        The checkpoint of that score is there by now: a run that is killed before evaluates again.
        """
        if runner.rank == 0 and not self.by_epoch:
            try:
                best.write(runner.work_dir, done, runner.meta.get('hook_msgs', {}))
            except SaveError as error:
                runner.logger.error('the best score is lost if the run is interrupted: %s', error)

    def _save_ckpt(self, runner: BaseRunner, score: float) -> None:
        """Saves the best checkpoint, and only then removes the previous one.

        mmcv removes it first, and has no best checkpoint if saving fails.
        """
        if self._saves_best:  # If that fails, the best score is an earlier one.
            wait_for_checkpoint(runner)
        record = runner.meta.setdefault('hook_msgs', {})
        if not self.compare_func(score, record.get('best_score', self.init_value_map[self.rule])):
            return
        done = runner.epoch + 1 if self.by_epoch else runner.iter + 1
        key = re.sub(r'[/{}]', '-', self.key_indicator)  # of a class, by any name
        name = (f'best_{key}_{"epoch" if self.by_epoch else "iter"}_{done}'
                f'{runner.checkpoint_suffix}')
        before = {key: record.get(key) for key in ('best_score', 'best_ckpt')}
        record.update(best_score=score, best_ckpt=osp.join(self.out_dir, name))
        self._saves_best = True
        save_checkpoint(runner, self.out_dir, partial(self._finish, runner, done, score, before),
                        filename_tmpl=name, create_symlink=False)

    def _finish(self, runner: BaseRunner, done: int, score: float, before: dict,
                outcome: Outcome) -> None:
        """Does what follows once the best checkpoint is there, or is not to be.

        Args:
            runner: Runner of the model.
            done: Number of the iteration (or epoch) that was evaluated.
            score: Its score.
            before: Best score before, and its checkpoint.
            outcome: How the save ended.
        """
        self._saves_best = False
        if outcome.error is not None:
            record = runner.meta['hook_msgs']
            record.update(before)
            for key in [key for key, value in before.items() if value is None]:
                del record[key]
            runner.logger.error('the previous best checkpoint is kept: %s', outcome.error)
        else:
            previous, self.best_ckpt_path = self.best_ckpt_path, outcome.path
            if previous and previous != outcome.path and osp.exists(previous) and (
                    runner.rank == 0 and osp.abspath(osp.dirname(previous))
                    == osp.abspath(self.out_dir)):
                remove_checkpoint(previous)  # One in another work dir, resumed from, is kept.
            runner.logger.info('best %s so far: %s, saved as %s', self.key_indicator,
                               percent(score), outcome)
        if outcome.wrote is not None:
            self._persist(runner, done)


@contextmanager
def rewound(runner: BaseRunner) -> Iterator[None]:
    """Rewinds the runner by one iteration, as hooks expect."""
    runner.mode, runner._iter = 'train', runner.iter - 1
    try:
        yield
    finally:
        runner._iter += 1
