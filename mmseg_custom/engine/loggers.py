"""The packages that loggers need: missing ones are named before a run starts."""
import importlib.util
from collections.abc import Mapping

from mmcv import Config

from ..errors import InputError

TRACKING = "'mmseg_custom[tracking]'"
# Hook -> (module, what pip installs)
PACKAGES = dict(
    WandbLoggerHook=('wandb', TRACKING), MMSegWandbHook=('wandb', TRACKING),
    MlflowLoggerHook=('mlflow', TRACKING), NeptuneLoggerHook=('neptune', 'neptune-client'),
    DvcliveLoggerHook=('dvclive', 'dvclive'), ClearMLLoggerHook=('clearml', 'clearml'),
    SegmindLoggerHook=('segmind', 'segmind'), PaviLoggerHook=('pavi', 'pavi'))
OF_WANDB = ('WandbLoggerHook', 'MMSegWandbHook')


def check_loggers(cfg: Config) -> None:
    """Checks that the packages of the loggers in a config are installed.

    Raises:
        InputError: Naming the first that is not, or two hooks that log to one run of W&B.
    """
    asked = [('log_config.hooks', hook) for hook in (cfg.get('log_config') or {}).get('hooks', [])]
    asked += [('custom_hooks', hook) for hook in cfg.get('custom_hooks') or []]
    kinds = [(place, hook.get('type')) for place, hook in asked if isinstance(hook, Mapping)]
    for place, kind in kinds:
        if not isinstance(kind, str) or kind not in PACKAGES:
            continue
        module, package = PACKAGES[kind]
        if importlib.util.find_spec(module) is None:
            raise InputError(f'{place}: {kind} needs the package {module}, which is not '
                             f'installed: pip install {package}, or leave the hook out')
    of_wandb = [(place, kind) for place, kind in kinds if kind in OF_WANDB]
    if len(of_wandb) > 1:
        place, kind = of_wandb[1]
        raise InputError(f'{place}: {kind} is the second hook for W&B, after {of_wandb[0][1]}: '
                         'expected one: leave the other out')
