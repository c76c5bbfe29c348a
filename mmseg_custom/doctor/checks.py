"""All that the doctor looks at, one after the other, and what to change where it does not fit."""
import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from mmcv import Config
from mmseg.datasets.builder import DATASETS

from ..engine.config import other_classes
from ..errors import InputError
from .data import check_data
from .environment import check_environment
from .findings import FAULT, Finding, fault
from .memory import GIB, SHARDED, Mode, Plan, plan_of, predict
from .timing import measure_rates, seconds_of
from .weights import build_network, check_weights


@dataclass
class Examination:
    """What was found.

    Attributes:
        findings: Faults and warnings.
        data: Images and decoded pairs by split.
        weights: The files that were read.
        environment: Versions, kernels, room.
        plan: What the run is to be.
        modes: Memory of every way to run it.
        seconds: Name of a mode -> seconds of an iteration; empty where no rate is known.
        rates: What they follow from: FLOP/s by dtype.
        advice: What to change, if the run does not fit.
    """
    findings: list[Finding] = field(default_factory=list)
    data: dict = field(default_factory=dict)
    weights: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    plan: Plan | None = None
    modes: list[Mode] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    advice: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether no fault was found."""
        return all(finding.level != FAULT for finding in self.findings)

    @property
    def chosen(self) -> Mode | None:
        """The way that the config runs."""
        return next((mode for mode in self.modes if mode.chosen), None)


def examine(cfg: Config, config_path: str, device: str, ranks: int, memory: int | None,
            tflops: float | None = None,
            progress: Callable[[str], None] = lambda text: None) -> Examination:
    """Looks at a run before it starts.

    Args:
        cfg: Its config.
        config_path: Where that is.
        device: 'cuda' or 'cpu', that it will run on.
        ranks: Processes, one a GPU.
        memory: Bytes of a GPU (of the host, for 'cpu').
        tflops: 10^12 FLOP/s of a GPU in the backbone's dtype, where there is none to measure.
        progress: Is told what comes next.
    """
    found = Examination()
    progress('data')
    findings, found.data = check_data(cfg)
    found.findings += findings
    progress('weights')
    network = check_network(cfg)
    found.findings += network
    if network:
        return found
    findings, found.weights = check_weights(cfg)
    found.findings += findings
    try:
        found.plan = plan_of(cfg, device, ranks, memory)
        found.modes = predict(cfg, found.plan, lambda text: progress(f'memory: {text}'))
    except InputError as error:
        found.findings.append(fault('memory', str(error), 'correct the config'))
        return found
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        found.findings.append(fault(
            'config', f'the network does not run on what the pipeline makes: {lines[0]}',
            'correct model or data.train.pipeline', 'model'))
        return found
    progress('environment')
    findings, found.environment = check_environment(cfg, config_path, found.plan)
    found.findings += findings
    progress('rates')
    _predict_time(found, cfg, tflops)
    _judge(found)
    return found


def check_network(cfg: Config) -> list[Finding]:
    """Whether the network can be built, for as many classes as the data has."""
    try:
        build_network(copy.deepcopy(cfg))
    except (InputError, TypeError, KeyError, ValueError, AssertionError) as error:
        return [fault('config', f'the network cannot be built: {error}', 'correct it', 'model')]
    train = cfg.data.train
    if not isinstance(train, dict):
        return []
    classes = train.get('classes') or getattr(DATASETS.get(train['type']), 'CLASSES', None)
    if not isinstance(classes, (list, tuple)):
        return []
    return [fault(
        'config', f'the head has {number} classes, the data {len(classes)}',
        f'set num_classes={len(classes)}', key) for key, number in other_classes(cfg, classes)]


def _predict_time(found: Examination, cfg: Config, tflops: float | None) -> None:
    dtypes = sorted({dtype for mode in found.modes for dtype in mode.flops}, key=str)
    here = found.plan.device == 'cpu' or torch.cuda.is_available()
    if not here and tflops is None:
        return
    backbone = cfg.model.backbone
    tokens = found.plan.crop[0] * found.plan.crop[1] // backbone.get('patch_size', 14) ** 2
    if here:
        rates, bandwidth = measure_rates(found.plan.device, backbone.get('embed_dim', 3200),
                                         tokens * found.plan.images, dtypes)
    else:  # float32 runs at about half, and memory at 3e12 bytes/s on an H100
        rates = {d: tflops * 1e12 / (2 if d == torch.float32 else 1) for d in dtypes}
        bandwidth = 3e12
    found.rates = {str(dtype).removeprefix('torch.'): rate for dtype, rate in rates.items()}
    found.seconds = {mode.name: seconds_of(mode, rates, bandwidth) for mode in found.modes}


def _judge(found: Examination) -> None:
    """A fault and advice, where the chosen mode does not fit."""
    chosen, plan = found.chosen, found.plan
    if chosen is None or chosen.fits is not False:
        return
    for mode in sorted(found.modes, key=lambda m: (m.offload, not m.checkpointing)):
        if mode.fits:
            found.advice.append(f'{mode.name}: {mode.peak / GIB:.1f} GiB ({_how(mode)})')
    if not found.advice:
        found.advice += _smaller(found)
    each = 'GPU' if plan.device == 'cuda' else 'machine'
    found.findings.append(fault(
        'memory', f'{chosen.name} needs {chosen.peak / GIB:.1f} GiB of the '
        f'{plan.usable / GIB:.1f} GiB that a {each} has for it',
        found.advice[0] if found.advice else 'take larger GPUs', 'engine'))


def _how(mode: Mode) -> str:
    words = [f'--engine {mode.engine}']
    words += ['engine.cpu_offload=True'] if mode.offload else []
    return ', '.join([*words, f'model.backbone.with_cp={mode.checkpointing}'])


def _smaller(found: Examination) -> list[str]:
    """Fewer images at once, or more GPUs."""
    plan, advice = found.plan, []
    best = min((m for m in found.modes if not m.offload), key=lambda m: m.peak)
    if plan.images > 1:
        advice.append(f'data.samples_per_gpu=1 and --total-batch '
                      f'{plan.images * plan.ranks * plan.accumulation} with {best.name}')
    sharded = [m for m in found.modes if m.engine == 'fsdp2' and not m.offload]
    for mode in sharded:
        states = sum(mode.parts[kind] for kind in SHARDED)
        room = plan.usable - (mode.peak - states)
        if room > 0 and plan.device == 'cuda':
            ranks = -(-states * plan.ranks // room)
            advice.append(f'{mode.name} on {max(ranks, plan.ranks + 1)} or more GPUs')
    return advice
