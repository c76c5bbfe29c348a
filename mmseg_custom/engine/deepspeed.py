"""DeepSpeed's settings in configs of InternVL-MMDetSeg, and the settings here that replace them.

The fork reads three keys: ``deepspeed`` turns DeepSpeed on, ``deepspeed_config`` is its JSON file
or the content of one, and ``checkpoint_config.deepspeed`` chooses the hook that saves. What the
JSON and the config both say is taken from the config.
"""
import os.path as osp
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcv import Config

from ..errors import InputError, hint, nearest, one_line, some_of
from ..schema import (
    Check,
    integer,
    load_json,
    mismatch,
    nullable,
    number,
    record,
    text,
    validate,
)
from .options import RunOptions

ENGINES = {0: 'ddp', 1: 'auto', 2: 'auto', 3: 'fsdp2'}  # by ZeRO's stage, of several processes
MEANINGS = dict(ddp='DDP', auto='DDP where the backbone is frozen, FSDP2 where it is trained',
                fsdp2='FSDP2')
HOOKS = dict(ToBFloat16Hook='bf16', ToFloat16Hook='fp16')
ACCUMULATING = 'GradientCumulativeOptimizerHook'
TOTAL, SAMPLES = 'train_batch_size', 'train_micro_batch_size_per_gpu'  # images
STEPS, CLIPPING = 'gradient_accumulation_steps', 'gradient_clipping'
SHOWN = 8  # settings without effect that the line names
EXPECTED = 'the settings of DeepSpeed'


def replace_deepspeed(cfg: Config, options: RunOptions, filename: str | None = None) -> list[str]:
    """Replaces DeepSpeed's settings in a config that is being resolved.

    ``deepspeed_config`` is looked for in the current folder and in those above the config. Without
    it, the config alone decides.

    Args:
        cfg: Config, which is changed: its settings of DeepSpeed are removed.
        options: Options of the command line.
        filename: File of the config.

    Returns:
        One log line where DeepSpeed is turned on, none elsewhere.

    Raises:
        InputError: If ``deepspeed_config`` is there and no JSON file, a value in it is of another
            kind than expected, or a key is mistyped.
    """
    if cfg.get('checkpoint_config'):
        cfg.checkpoint_config.pop('deepspeed', None)
    is_on, source = cfg.pop('deepspeed', None), cfg.pop('deepspeed_config', None)
    if not is_on:
        return []
    line = "deepspeed=True: PyTorch's own engines are used"
    path = _find(source, filename) if isinstance(source, str) else None
    if path is None and not isinstance(source, Mapping):
        missing = f'deepspeed_config={source!r} does not exist, so that ' if source else ''
        return [f'{line}; {missing}the config alone decides']
    name = path or 'deepspeed_config'
    settings = source if path is None else load_json(path, EXPECTED)
    _check(settings, name)
    replaced = [_precision(cfg, settings)]
    if options.owns_work_dir and options.checkpoint is None:
        replaced += [*_engine(cfg, settings['zero_optimization'], options.launcher != 'none'),
                     *_batch(cfg, settings), *_clipping(cfg, settings)]
    unread = [one_line(key) for key in _without_effect(settings)]
    return [f'{line}. {name}: {"; ".join(replaced)}'
            + (f'; without effect: {some_of(unread, SHOWN)}' if unread else '')]


def _find(source: str, filename: str | None) -> str | None:
    """Finds the JSON file; returns None if it is nowhere."""
    folders = ['', *map(str, Path(filename).resolve().parents)] if filename else ['']
    return next((path for path in (osp.join(folder, source) for folder in folders)
                 if osp.isfile(path)), None)


def _flag(value: Any, place: str) -> None:
    """Takes true and false."""
    if not isinstance(value, bool):
        raise mismatch(place, value, 'true or false')


def _or_auto(check: Check) -> Check:
    """Returns a check that takes 'auto' too, which transformers fills in."""
    return lambda value, place: None if value == 'auto' else check(value, place)


def _stage(value: Any, place: str) -> None:
    """Takes a stage of ZeRO."""
    if type(value) is not int or value not in ENGINES:
        raise mismatch(place, value, 'a stage of 0 to 3')


_COUNT, _SWITCH = _or_auto(integer(1)), dict(enabled=_or_auto(_flag))
_OFFLOAD = nullable(record({}, dict(device=text)))
_OFFLOADED = dict(offload_optimizer=_OFFLOAD, offload_param=_OFFLOAD, cpu_offload=_flag)
_READ: dict[str, dict[str, Check]] = dict(
    zero_optimization=dict(_OFFLOADED, stage=_stage), bf16=_SWITCH, bfloat16=_SWITCH, fp16=_SWITCH)
# DeepSpeed's own keys that are like those above.
_SIMILAR = ('gradient_accumulation_dtype', 'cpu_offload_param', 'cpu_offload_params')
_PLAIN = {TOTAL: _COUNT, SAMPLES: _COUNT, STEPS: _COUNT, CLIPPING: _or_auto(number(0))}


def _check(settings: Any, path: str) -> None:
    """Checks the settings that are read, and fills in those that may be left out."""
    validate(settings, record({}), path, f'expected {EXPECTED}')
    if isinstance(settings.get('zero_optimization'), bool):  # an older form of stage 1
        settings['zero_optimization'] = dict(stage=int(settings['zero_optimization']))
    sections = {name: record({}, keys) for name, keys in _READ.items()}
    validate(settings, record({}, {**_PLAIN, **sections}), path)
    _refuse_mistyped('', settings, [*_PLAIN, *_READ], path)
    for place, keys in _READ.items():
        _refuse_mistyped(f'{place}.', settings.get(place, {}), list(keys), path)
    for name in _READ:
        settings.setdefault(name, {})
    for name in [name for name in _PLAIN if settings.get(name) == 'auto']:
        del settings[name]


def _refuse_mistyped(place: str, names: Iterable[str], keys: Sequence[str], path: str) -> None:
    for name in names:
        if name not in keys and name not in _SIMILAR and nearest(name, keys):
            raise InputError(f'{path}: unknown key {place}{name}{hint(name, keys)}')


def _precision(cfg: Config, settings: Mapping[str, Any]) -> str:
    """Takes the precision of the backbone, where the config gives none."""
    names = dict(bf16='bf16', bfloat16='bf16', fp16='fp16')
    asked = next((dtype for name, dtype in names.items()
                  if settings[name].get('enabled') is True), 'fp32')
    hooks = [hook['type'] for hook in cfg.get('custom_hooks') or []
             if isinstance(hook, Mapping) and hook.get('type') in HOOKS]
    own = cfg.get('precision') or next((HOOKS[hook] for hook in hooks), None)
    if own is None:
        cfg.precision = own = asked
    key = f'precision={own!r}' if cfg.get('precision') else hooks[0]
    losses = ', losses are not scaled' if 'fp16' in (asked, own) else ''
    return f'{asked} ' + ('is that of' if own == asked else 'gives way to') + f' {key}{losses}'


def _engine(cfg: Config, zero: Mapping[str, Any], are_several: bool) -> Iterator[str]:
    """Takes the engine and its offloading, where the config gives none."""
    stage, engine = zero.get('stage', 0), dict(cfg.get('engine') or {})
    if engine.get('type') is not None:
        yield f'ZeRO stage {stage} gives way to engine.type={engine["type"]!r}'
    elif are_several:
        engine['type'] = ENGINES[stage]
        yield f'ZeRO stage {stage} is engine.type={engine["type"]!r} ({MEANINGS[engine["type"]]})'
    else:
        yield f'ZeRO stage {stage} has no effect in one process'
    asked = [name for name in _OFFLOADED
             if zero.get(name) is True or isinstance(zero.get(name), Mapping)
             and zero[name].get('device', 'none') != 'none']
    if asked and stage:
        engine.setdefault('cpu_offload', True)
        yield (f'{" and ".join(asked)}: engine.cpu_offload={engine["cpu_offload"]}, which FSDP2 '
               'reads')
    if engine:
        cfg.engine = engine


def _batch(cfg: Config, settings: Mapping[str, Any]) -> Iterator[str]:
    """Takes the accumulated batches, and compares the images of a batch."""
    data = cfg.get('data') or {}
    own = {**data, **(data.get('train_dataloader') or {})}.get('samples_per_gpu')
    steps = settings.get(STEPS, 1)
    if steps > 1:
        yield _accumulation(cfg, steps)
    samples, total = settings.get(SAMPLES), settings.get(TOTAL)
    if samples is not None and own is not None and samples != own:
        yield f'{SAMPLES}={samples} gives way to data.samples_per_gpu={own}'
    if total is None or own is None:
        return
    if cfg.get('total_batch') is not None:
        if cfg.total_batch != total:
            yield f'{TOTAL}={total} gives way to total_batch={cfg.total_batch}'
    elif total % (own * steps):
        yield f'{TOTAL}={total} is no multiple of data.samples_per_gpu={own}' + (
            f' x {steps}' if steps > 1 else '') + ', which decides'
    else:
        yield f'{TOTAL}={total} is that of {total // (own * steps)} process(es)' + (
            '' if steps > 1 else f', or with any number of them --total-batch {total}')


def _accumulation(cfg: Config, steps: int) -> str:
    """Lets the optimizer step after several iterations, as DeepSpeed counts them."""
    hook = dict(cfg.get('optimizer_config') or {})
    own = {name: value for name, value in dict(
        total_batch=cfg.get('total_batch'), accumulation=cfg.get('accumulation')).items() if value}
    if own:
        return f'{STEPS}={steps} gives way to {"=".join(map(str, next(iter(own.items()))))}'
    if hook.get('type', 'OptimizerHook') == 'OptimizerHook':
        cfg.optimizer_config = hook = {**hook, 'type': ACCUMULATING, 'cumulative_iters': steps}
    iterations = hook.get('cumulative_iters', 1)
    return f'{STEPS}={steps} ' + ('is' if iterations == steps else 'gives way to') + (
        f' optimizer_config.cumulative_iters={iterations}')


def _clipping(cfg: Config, settings: Mapping[str, Any]) -> Iterator[str]:
    """Takes the norm that gradients are clipped to, where the config gives none."""
    norm = settings.get(CLIPPING)
    if not norm:
        return
    own = ((cfg.get('optimizer_config') or {}).get('grad_clip') or {}).get('max_norm')
    if own is None:
        cfg.optimizer_config = {**(cfg.get('optimizer_config') or {}),
                                'grad_clip': dict(max_norm=norm, norm_type=2)}
    yield f'{CLIPPING}={norm:g} ' + ('is' if own in (None, norm) else 'gives way to') + (
        f' optimizer_config.grad_clip.max_norm={norm if own is None else own:g}')


def _without_effect(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yields the keys of settings that nothing here corresponds to."""
    for name, value in settings.items():
        if name in _READ:
            yield from (f'{name}.{key}' for key in value if key not in _READ[name])
        elif name not in _PLAIN:
            yield name
