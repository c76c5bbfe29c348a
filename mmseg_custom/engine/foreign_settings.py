"""Settings that mmseg's and mmcv's trainings obey, and this one does not: each is named in the log.

What else mmseg's ``tools/train.py``, ``mmseg.apis.train`` and mmcv's runner read from a config has
its effect here too.
"""
from collections.abc import Mapping
from typing import Any

from mmcv import Config

from ..errors import InputError
from .options import RunOptions

PRECISION = ("the backbone computes in bfloat16, or as precision='fp16' | 'fp32' says, on float32 "
             'master weights, the heads in float32, and losses are not scaled')
HALF = {'Fp16OptimizerHook': 'OptimizerHook',
        'GradientCumulativeFp16OptimizerHook': 'GradientCumulativeOptimizerHook'}
OF_SCALING = ('loss_scale', 'coalesce', 'bucket_size_mb', 'distributed')


def replace_foreign_settings(cfg: Config, options: RunOptions) -> list[str]:
    """Replaces settings that have another effect with mmseg, in a config that is being resolved.

    Args:
        cfg: Config, which is changed.
        options: Options of the command line.

    Returns:
        A line for each setting that has no or another effect.
    """
    of_training = (*_lengths(cfg), *_of_the_command_line(cfg, options), *_optimizer_hook(cfg),
                   *_loader(cfg), *_scaled_rate(cfg))
    return [*_fp16(cfg), *(of_training if options.owns_work_dir else ())]


def read_workflow(workflow: Any) -> tuple[int, int]:
    """Reads ``workflow`` of a config.

    Returns:
        Number of training iterations between validations, and of batches in a validation; 0 if
        there is none.

    Raises:
        InputError: If it is neither [('train', N)] nor [('train', N), ('val', M)].
    """
    steps = [tuple(step) if isinstance(step, (list, tuple)) else (step,)
             for step in workflow or [('train', 1)]]
    modes = [step[:1] for step in steps]
    valid = modes in ([('train',)], [('train',), ('val',)]) and all(
        len(step) == 2 and isinstance(step[1], int) and step[1] > 0 for step in steps)
    if not valid:
        raise InputError(f"workflow={workflow!r}: expected [('train', N)], or [('train', N), "
                         "('val', M)] for the loss of M batches of data.val after every N "
                         'iterations')
    return steps[0][1], steps[1][1] if len(steps) > 1 else 0


def _fp16(cfg: Config) -> list[str]:
    if cfg.pop('fp16', None) is None:
        return []
    return [f'fp16 of the config has no effect: {PRECISION}']


def _lengths(cfg: Config) -> list[str]:
    runner = cfg.get('runner') or {}
    return [f'{name}={cfg[name]!r} has no effect: runner={dict(runner)} gives the length of the run'
            for name, key in (('total_iters', 'max_iters'), ('total_epochs', 'max_epochs'))
            if cfg.get(name) is not None and runner.get(key) != cfg[name]]


def _of_the_command_line(cfg: Config, options: RunOptions) -> list[str]:
    """Names keys that mmseg writes into the configs in work dirs but does not read."""
    resumes = options.auto_resume or cfg.get('resume_from')
    found = {'--auto-resume': cfg.get('auto_resume') and not options.auto_resume,
             f'--seed {cfg.get("seed")}': (cfg.get('seed') is not None and options.seed is None
                                           and not resumes)}
    return [f'{name.split()[0].strip("-").replace("-", "_")} of the config has no effect, as with '
            f"mmseg's training: give {name}" for name, ignored in found.items() if ignored]


def _optimizer_hook(cfg: Config) -> list[str]:
    options = cfg.get('optimizer_config')
    if not isinstance(options, Mapping) or options.get('type') not in HALF:
        return []
    half, plain = options['type'], HALF[options['type']]
    kept = {name: value for name, value in options.items() if name not in OF_SCALING}
    cfg.optimizer_config = {**kept, 'type': plain}
    return [f'optimizer_config.type={half!r} means {plain!r} here: {PRECISION}']


def _loader(cfg: Config) -> list[str]:
    data = cfg.get('data') or {}
    if {**data, **(data.get('train_dataloader') or {})}.get('shuffle', True):
        return []
    return ['data.train_dataloader.shuffle=False has no effect: the images of a training come in '
            'one endless shuffled stream']


def _scaled_rate(cfg: Config) -> list[str]:
    scaling = cfg.get('auto_scale_lr')
    if not isinstance(scaling, Mapping) or not scaling.get('enable'):
        return []
    return ['auto_scale_lr of the config has no effect: optimizer.lr is the learning rate of any '
            'batch']
