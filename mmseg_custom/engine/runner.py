"""mmcv's iteration-based runner with checkpoints that are whole, small and readable."""
import os.path as osp
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext

from mmcv.runner import RUNNERS, IterBasedRunner

from ..checkpoint import (
    Checkpoint,
    load_optimizer,
    load_segmentor,
    save_checkpoint,
    save_sharded,
)
from ..checkpoint.shard_reader import SUFFIX
from ..distributed.launch import broadcast_from_rank0, is_first_of_node
from ..distributed.parallelize import is_sharded, no_sync, unwrap
from ..models.frozen_features import as_inputs
from . import best


@RUNNERS.register_module('IterBasedRunner', force=True)
class SegRunner(IterBasedRunner):
    """Takes the place of mmcv's runner, also where mmseg's own tools build it.

    mmcv 1.7 writes a checkpoint in place (a kill in the middle destroys the file of that name and
    may leave none as ``latest.pth``), with the frozen backbone in it, with the number of the
    iteration before, and resumes by default onto a CUDA device.

    Attributes:
        accumulation: Batches whose gradients are added up in an iteration, which is always one step
            of the optimizer. What is logged is their mean.
        evaluated: The iteration that the run went on from, if its evaluation had been finished.
    """

    accumulation = 1
    evaluated: int | None = None

    def train(self, data_loader: Iterator, **kwargs) -> None:
        """Runs one iteration; the last of its batches is left to the optimizer's hook."""
        self.model.train()
        self.mode = 'train'
        self.data_loader = data_loader
        self._epoch = data_loader.epoch
        self.data_batch = next(data_loader)
        self.call_hook('before_train_iter')
        log_vars, samples = Counter(), 0
        for left in reversed(range(self.accumulation)):
            with no_sync(self.model) if left else nullcontext():
                self.outputs = self.model.train_step(
                    as_inputs(self.data_batch), self.optimizer, **kwargs)
                if left:
                    (self.outputs['loss'] / self.accumulation).backward()
                    self.data_batch = next(data_loader)
            samples += self.outputs['num_samples']
            for name, value in self.outputs['log_vars'].items():
                log_vars[name] += value / self.accumulation
        self.outputs.update(log_vars=dict(log_vars), num_samples=samples)
        self.log_buffer.update(self.outputs['log_vars'], samples)
        self.call_hook('after_train_iter')
        del self.data_batch
        self._inner_iter += 1
        self._iter += 1

    @property
    def checkpoint_suffix(self) -> str:
        """Of the names of checkpoints: '.dcp' for a folder that all ranks write, else '.pth'."""
        return SUFFIX if is_sharded(self.model) else '.pth'

    def save_checkpoint(self, out_dir: str, filename_tmpl: str = 'iter_{}.pth',
                        meta: dict | None = None, save_optimizer: bool = True,
                        create_symlink: bool = True) -> str:
        """Saves a checkpoint of the iterations done so far; of a sharded model, on all ranks.

        Args:
            out_dir: Its folder.
            filename_tmpl: Its name, with a place for the number of iterations; what it ends with
                becomes ``checkpoint_suffix``.
            meta: Goes into it, beside the runner's own.
            save_optimizer: Whether the optimizer's state goes with it.
            create_symlink: Whether ``latest.pth`` is to point to it.

        Returns:
            Its path.

        Raises:
            SaveError: If it could not be written; earlier files are unchanged.
        """
        done = self.iter + 1
        meta = {**(meta or {}), **(self.meta or {}), 'epoch': self.epoch + 1, 'iter': done}
        name = osp.splitext(filename_tmpl.format(done))[0] + self.checkpoint_suffix
        path = osp.join(out_dir, name)
        save = save_sharded if is_sharded(self.model) else save_checkpoint
        save(unwrap(self.model), path, self.optimizer if save_optimizer else None, meta,
             link_latest=create_symlink)
        return path

    def resume(self, checkpoint: str, resume_optimizer: bool = True,
               map_location: str = 'default') -> None:
        """Loads a checkpoint, and goes on after its last iteration."""
        self.restore(load_segmentor(unwrap(self.model), checkpoint, verify=is_first_of_node(),
                                    logger=self.logger), resume_optimizer)

    def restore(self, checkpoint: Checkpoint, resume_optimizer: bool = True) -> None:
        """Takes over everything but the weights.

        Args:
            checkpoint: Open checkpoint, whose weights are loaded; the record of the best score
                lies beside it.
            resume_optimizer: Whether to load the optimizer's state.
        """
        meta, path = checkpoint.meta, checkpoint.path
        self._epoch = meta['epoch']
        self._iter = self._inner_iter = meta['iter']
        found = broadcast_from_rank0(best.read(osp.dirname(osp.abspath(path)), self.iter))
        self.evaluated = None if found is None else self.iter
        self.meta = {**(self.meta or {}),
                     'hook_msgs': {**meta.get('hook_msgs', {}), **(found or {})}}
        if resume_optimizer and (checkpoint.is_sharded or checkpoint.optimizer is not None):
            load_optimizer(self.optimizer, checkpoint)
        self.logger.info('going on after iteration %d', self.iter)
