"""The packages that trackers and other loggers need: missing ones are named before a run starts."""
import importlib.util
from collections.abc import Mapping

from mmcv import Config

from ..errors import InputError

OURS = "pip install 'mmseg_custom[tracking]'"
# Hook -> modules, name of the package and how it is installed
PACKAGES: dict[str, tuple[tuple[str, ...], str, str]] = dict(
    WandbLoggerHook=(('wandb',), 'wandb', OURS), MMSegWandbHook=(('wandb',), 'wandb', OURS),
    MlflowLoggerHook=(('mlflow',), 'mlflow', OURS),
    NeptuneLoggerHook=(('neptune',), 'neptune-client', 'pip install neptune-client'),
    DvcliveLoggerHook=(('dvclive',), 'dvclive', 'pip install dvclive'),
    ClearMLLoggerHook=(('clearml',), 'clearml', 'pip install clearml'),
    SegmindLoggerHook=(('segmind',), 'segmind', 'pip install segmind'),
    PaviLoggerHook=(('pavi',), 'pavi', 'pip install pavi'))
ONE_RUN = {'WandbLoggerHook', 'MMSegWandbHook'}  # both log to the same run of W&B


def check_loggers(cfg: Config) -> None:
    """Checks that the packages of the trackers in a config are installed.

    Raises:
        InputError: Naming the first that is not, or two hooks for the same run of W&B.
    """
    asked = [('log_config.hooks', hook) for hook in (cfg.get('log_config') or {}).get('hooks', [])]
    asked += [('custom_hooks', hook) for hook in cfg.get('custom_hooks') or []]
    kinds = [(place, hook.get('type')) for place, hook in asked if isinstance(hook, Mapping)]
    for place, kind in kinds:
        if not isinstance(kind, str) or kind not in PACKAGES:
            continue
        modules, package, way_out = PACKAGES[kind]
        if any(importlib.util.find_spec(module) is None for module in modules):
            raise InputError(f'{place}: {kind} needs the package {package}, which is not '
                             f'installed: {way_out}, or leave the hook out')
    of_wandb = [(place, kind) for place, kind in kinds if kind in ONE_RUN]
    if len(of_wandb) > 1:
        place, kind = of_wandb[1]
        raise InputError(f'{place}: {kind} is the second hook for W&B, after {of_wandb[0][1]}: '
                         'expected one: leave the other out')
