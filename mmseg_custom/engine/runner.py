"""mmcv's iteration-based runner with checkpoints that are whole, small and readable."""
import os.path as osp

from mmcv.runner import RUNNERS, IterBasedRunner

from ..checkpoint import load_segmentor, save_checkpoint
from ..distributed.launch import agreed, is_first_of_node
from ..distributed.parallelize import unwrap
from . import best


@RUNNERS.register_module('IterBasedRunner', force=True)
class SegRunner(IterBasedRunner):
    """Takes the place of mmcv's runner, also where mmseg's own tools build it.

    mmcv 1.7 writes a checkpoint in place (a kill in the middle destroys the file of that name and
    may leave none as ``latest.pth``), with the frozen backbone in it, with the number of the
    iteration before, and resumes by default onto a CUDA device.

    Attributes:
        evaluated: The iteration that the run went on from, if its evaluation had been finished.
    """

    evaluated: int | None = None

    def save_checkpoint(self, out_dir: str, filename_tmpl: str = 'iter_{}.pth',
                        meta: dict | None = None, save_optimizer: bool = True,
                        create_symlink: bool = True) -> None:
        """Saves a checkpoint of the iterations done so far.

        Args:
            out_dir: Its folder.
            filename_tmpl: Its name, with a place for the number of iterations.
            meta: Goes into it, beside the runner's own.
            save_optimizer: Whether the optimizer's state goes with it.
            create_symlink: Whether ``latest.pth`` is to point to it.

        Raises:
            SaveError: If it could not be written; earlier files are unchanged.
        """
        done = self.iter + 1
        meta = {**(meta or {}), **(self.meta or {}), 'epoch': self.epoch + 1, 'iter': done}
        save_checkpoint(self.model, osp.join(out_dir, filename_tmpl.format(done)),
                        self.optimizer if save_optimizer else None, meta,
                        link_latest=create_symlink)

    def resume(self, checkpoint: str, resume_optimizer: bool = True,
               map_location: str = 'default') -> None:
        """Loads a checkpoint, and goes on after its last iteration."""
        self.restore(load_segmentor(unwrap(self.model), checkpoint, verify=is_first_of_node(),
                                    logger=self.logger), osp.dirname(checkpoint), resume_optimizer)

    def restore(self, checkpoint: dict, folder: str, resume_optimizer: bool = True) -> None:
        """Takes over everything but the weights.

        Args:
            checkpoint: With ``meta`` and, if it is to go on, ``optimizer``.
            folder: Where it lies, and the record of the best score.
            resume_optimizer: Whether the optimizer's state is taken over.
        """
        meta = checkpoint['meta']
        self._epoch = meta['epoch']
        self._iter = self._inner_iter = meta['iter']
        found = agreed(best.read(folder, self.iter))
        self.evaluated = None if found is None else self.iter
        self.meta = {**(self.meta or {}),
                     'hook_msgs': {**meta.get('hook_msgs', {}), **(found or {})}}
        if 'optimizer' in checkpoint and resume_optimizer:
            self.optimizer.load_state_dict(checkpoint['optimizer'])
        self.logger.info('going on after iteration %d', self.iter)
