"""mmcv's iteration-based runner, with accumulation of gradients and with our checkpoints."""
import os.path as osp
import time
from collections import Counter
from contextlib import nullcontext
from typing import Any

from mmcv.runner import RUNNERS, Hook, IterBasedRunner
from mmseg.models.segmentors.base import BaseSegmentor

from ..checkpoint import Checkpoint, load_optimizer, load_segmentor
from ..checkpoint.content import check_progress
from ..checkpoint.integrity import finish_checks
from ..checkpoint.save import prepare_save
from ..checkpoint.shard_reader import SUFFIX
from ..checkpoint.sharded import prepare_sharded_save
from ..compat.feature_batches import batch_for
from ..distributed.collectives import broadcast_from_rank0
from ..distributed.launch import is_first_of_node
from ..distributed.parallelize import is_sharded, no_sync, unwrap
from ..logs import saying
from . import best
from .checkpoint_writer import CheckpointWriter, Finished
from .divergence import DivergenceHook
from .ema import MARK, averaged, restore_averages
from .iteration_timer import SegIterTimerHook
from .log_buffer import DeferredLogBuffer
from .training_mode import TrainingMode


@RUNNERS.register_module('IterBasedRunner', force=True)
class SegRunner(IterBasedRunner):
    """Replaces mmcv's runner, also where mmseg's own tools build it.

    mmcv 1.7 writes a checkpoint in place, so that a kill destroys the file of that name and may
    leave no ``latest.pth``. It includes the frozen backbone, records the number of the previous
    iteration, and resumes onto a CUDA device by default.

    Args:
        accumulation: Number of batches whose gradients are accumulated in an iteration, which is
            always one optimizer step. Logged values are means over these batches.
        epoch_length: Number of iterations after which mmcv's hooks before and after an epoch are
            called; None for a run that knows no epochs.
        allow_nonfinite: Whether the run goes on when its loss is NaN or infinite.
        **kwargs: Arguments of mmcv's runner.

    Attributes:
        defers_log: Whether losses are read from the device only when a line of the log is due.
        checkpoint_writer: Writes the checkpoints, one at a time.
        evaluated: Iteration that the run was resumed from, if its evaluation had been finished.
    """

    meta: dict | None
    defers_log = True

    def __init__(self, *args, accumulation: int = 1, epoch_length: int | None = None,
                 allow_nonfinite: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.accumulation, self.allow_nonfinite = accumulation, allow_nonfinite
        self.epoch_length, self._in_epoch = epoch_length, False
        if epoch_length:
            self._max_epochs = -(-self.max_iters // epoch_length)
        self.evaluated: int | None = None
        self.log_buffer = DeferredLogBuffer()
        self._training_mode = TrainingMode()
        self.checkpoint_writer = CheckpointWriter(self.logger)

    def register_training_hooks(self, lr_config, optimizer_config=None, checkpoint_config=None,
                                log_config=None, momentum_config=None, **kwargs) -> None:
        """Registers mmcv's hooks, and after the optimizer's the one that notices divergence.

        mmcv lets a momentum count epochs, which this runner calls no hooks for unless told to, and
        a log count iterations since the last validation, which are 1 at most.
        """
        if isinstance(momentum_config, dict):
            momentum_config.setdefault('by_epoch', False)
        for hook in (log_config or {}).get('hooks', []):
            hook['by_epoch'] = False
        super().register_training_hooks(lr_config, optimizer_config, checkpoint_config, log_config,
                                        momentum_config, **kwargs)
        if not self.allow_nonfinite:
            self.register_hook(DivergenceHook(), priority='ABOVE_NORMAL')

    def register_timer_hook(self, timer_config: dict | Hook | None) -> None:
        """Registers the timer that leaves evaluations out, in the place of mmcv's."""
        super().register_timer_hook(timer_config and SegIterTimerHook())

    def run(self, *args, **kwargs) -> None:
        """Runs all iterations; ends when no checkpoint is being written any more."""
        try:
            super().run(*args, **kwargs)
        except BaseException:
            self.checkpoint_writer.close()
            raise
        self.checkpoint_writer.wait()

    def train(self, data_loader: Any, **kwargs) -> None:
        """Runs one iteration; the optimizer hook runs the backward pass of its last batch."""
        self._enter(data_loader)
        self.data_batch = next(data_loader)
        self.call_hook('before_train_iter')
        # A segmentor with a step of its own may not know the option.
        if self.defers_log and type(unwrap(self.model)).train_step is BaseSegmentor.train_step:
            kwargs['defer_log'] = True
        log_vars: Counter[str] = Counter()
        samples = 0
        for left in reversed(range(self.accumulation)):
            with no_sync(self.model) if left else nullcontext():
                self.outputs = self.model.train_step(
                    batch_for(unwrap(self.model), self.data_batch), self.optimizer, **kwargs)
                if left:
                    (self.outputs['loss'] / self.accumulation).backward()
                    self.data_batch = next(data_loader)
            samples += self.outputs['num_samples']
            for name, value in self.outputs['log_vars'].items():
                log_vars[name] += value / self.accumulation
        self.outputs.update(log_vars=dict(log_vars), num_samples=samples)
        self.log_buffer.update(self.outputs['log_vars'], samples, mean_over_ranks=True)
        self.call_hook('after_train_iter')
        del self.data_batch
        self._leave()

    def _enter(self, data_loader: Any) -> None:
        """Prepares an iteration."""
        self.checkpoint_writer.poll()
        self._training_mode.enter(self.model)
        self.mode = 'train'
        self.data_loader = data_loader
        self._epoch = data_loader.epoch
        self._begin_epoch()

    def _leave(self) -> None:
        """Counts an iteration."""
        self._inner_iter += 1
        self._iter += 1
        self._end_epoch()

    def _begin_epoch(self) -> None:
        """Calls the hooks of an epoch in its first iteration, and where a run is resumed in it."""
        if self.epoch_length is None:
            return
        self._epoch = self.iter // self.epoch_length
        if not self._in_epoch:
            self._in_epoch = True
            self.call_hook('before_train_epoch')

    def _end_epoch(self) -> None:
        if self.epoch_length and self.iter % self.epoch_length == 0:
            self._in_epoch = False
            self.call_hook('after_train_epoch')

    @property
    def checkpoint_suffix(self) -> str:
        """Suffix of checkpoints: '.dcp' for a folder that all ranks write, else '.pth'."""
        return SUFFIX if is_sharded(self.model) else '.pth'

    def save_checkpoint(self, out_dir: str, filename_tmpl: str = 'iter_{}.pth',
                        meta: dict | None = None, save_optimizer: bool = True,
                        create_symlink: bool = True, finished: Finished | None = None) -> str:
        """Saves a checkpoint after the current iteration; on all ranks if the model is sharded.

        It is there when this returns, unless ``finished`` is given.

        Args:
            out_dir: Folder of the checkpoint.
            filename_tmpl: Name of the checkpoint, with a placeholder for the number of iterations;
                its suffix becomes ``checkpoint_suffix``.
            meta: Metadata in addition to the runner's own.
            save_optimizer: Whether to save the optimizer state.
            create_symlink: Whether to link ``latest.pth`` to the checkpoint.
            finished: Function that is called with the outcome once the checkpoint is there or could
                not be written, which may be after this returns:
                see :meth:`.checkpoint_writer.CheckpointWriter.write`.

        Returns:
            Path of the checkpoint.

        Raises:
            SaveError: If it could not be written, and nobody else is told; earlier files are
                unchanged.
            InputError: If the file that the weights come from turns out to be damaged.
        """
        began = time.monotonic()
        finish_checks()
        self.checkpoint_writer.wait()  # which may change the runner's metadata
        done = self.iter + 1
        meta = {**(meta or {}), **(self.meta or {}), 'epoch': self.epoch + 1, 'iter': done}
        name = osp.splitext(filename_tmpl.format(done))[0] + self.checkpoint_suffix
        path = osp.join(out_dir, name)
        prepare = prepare_sharded_save if is_sharded(self.model) else prepare_save
        with averaged(self) as others:
            if others:
                meta[MARK] = 'the weights are averages; ema_* are those that they are averages of'
            save = prepare(unwrap(self.model), path, self.optimizer if save_optimizer else None,
                           meta, link_latest=create_symlink, others=others)
            self.checkpoint_writer.write(save, began, finished)
        return path

    def resume(self, checkpoint: str, resume_optimizer: bool = True,
               map_location: str = 'default') -> None:
        """Loads a checkpoint and resumes after its last iteration; mmseg's own tools call this."""
        self.restore(load_segmentor(unwrap(self.model), checkpoint, verify=is_first_of_node(),
                                    logger=self.logger), resume_optimizer)

    def restore(self, checkpoint: Checkpoint, resume_optimizer: bool = True) -> None:
        """Restores everything except the weights.

        Args:
            checkpoint: Opened checkpoint, with the record of the best score beside it. From a
                sharded checkpoint, each rank reads its shards of the optimizer state.
            resume_optimizer: Whether to restore the optimizer state.
        """
        meta = checkpoint.meta
        check_progress(meta, checkpoint.path)
        self._epoch = meta.get('epoch') or 0
        self._iter = self._inner_iter = meta['iter']
        found = broadcast_from_rank0(
            best.read(osp.dirname(osp.abspath(checkpoint.path)), self.iter))
        self.evaluated = None if found is None else self.iter
        self.meta = {**(self.meta or {}),
                     'hook_msgs': {**(meta.get('hook_msgs') or {}), **(found or {})}}
        if resume_optimizer and (checkpoint.is_sharded or checkpoint.optimizer is not None):
            with saying('restoring the state of the optimizer'):
                load_optimizer(self.optimizer, checkpoint, unwrap(self.model))
        elif resume_optimizer:
            self.logger.warning('%s holds no state of an optimizer, which starts anew',
                                checkpoint.path)
        restore_averages(self, checkpoint)
        self.logger.info('resumed after iteration %d', self.iter)
