"""Loggers of mmcv and mmseg that need a package of their own: W&B, MLflow and others."""
import importlib.util
from collections.abc import Mapping

from mmcv import Config
from mmcv.runner import HOOKS, BaseRunner
from mmcv.runner.dist_utils import master_only
from mmcv.runner.hooks import WandbLoggerHook
from mmseg.core.hook import MMSegWandbHook

from ..errors import InputError

# Hook -> (module, name for pip)
PACKAGES = dict(
    WandbLoggerHook=('wandb', 'wandb'), MMSegWandbHook=('wandb', 'wandb'),
    MlflowLoggerHook=('mlflow', 'mlflow'), NeptuneLoggerHook=('neptune', 'neptune-client'),
    DvcliveLoggerHook=('dvclive', 'dvclive'), ClearMLLoggerHook=('clearml', 'clearml'),
    SegmindLoggerHook=('segmind', 'segmind'), PaviLoggerHook=('pavi', 'pavi'))


def check_loggers(cfg: Config) -> None:
    """Checks that the packages of the loggers in a config are installed.

    Raises:
        InputError: Naming the first that is not.
    """
    asked = [('log_config.hooks', hook) for hook in (cfg.get('log_config') or {}).get('hooks', [])]
    asked += [('custom_hooks', hook) for hook in cfg.get('custom_hooks') or []]
    for place, hook in asked:
        kind = hook.get('type') if isinstance(hook, Mapping) else None
        if not isinstance(kind, str) or kind not in PACKAGES:
            continue
        module, package = PACKAGES[kind]
        if importlib.util.find_spec(module) is None:
            raise InputError(f'{place}: {kind} needs the package {package}, which is not '
                             f'installed: pip install {package}, or leave the hook out')


class _SameStep(WandbLoggerHook):
    """Lets the lines of training and validation of an iteration share a step of W&B.

    mmcv's hook closes the step after the first, so that W&B drops the second: that of the
    validation. Here a step is closed by the next one, or the end of the run.
    """

    @master_only
    def before_run(self, runner: BaseRunner) -> None:
        """Begins the run of W&B.

        Raises:
            InputError: If that fails, as without a login.
        """
        try:
            super().before_run(runner)
        except Exception as error:
            if not type(error).__module__.startswith('wandb'):
                raise
            reason = str(error).strip().splitlines()[0]
            raise InputError(f'{type(self).__name__}: {reason}; run `wandb login`, or set '
                             'WANDB_MODE=offline') from error

    @master_only
    def log(self, runner: BaseRunner) -> None:
        """Sends a line of the log."""
        tags = self.get_loggable_tags(runner)
        if not tags:
            return
        step = self.get_iter(runner)
        if self.with_step:
            self.wandb.log(tags, step=step, commit=False)
        else:
            self.wandb.log({**tags, 'global_step': step}, commit=self.commit)


@HOOKS.register_module('WandbLoggerHook', force=True)
class SegWandbLoggerHook(_SameStep):
    """mmcv's logger for W&B, without the loss of validations."""


@HOOKS.register_module('MMSegWandbHook', force=True)
class SegMMSegWandbHook(_SameStep, MMSegWandbHook):
    """mmseg's logger for W&B, without the loss of validations."""
