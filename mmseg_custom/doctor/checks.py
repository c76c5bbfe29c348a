"""All checks of the doctor, one after the other."""
from collections.abc import Callable
from dataclasses import dataclass, field

from mmcv import Config

from ..distributed.failures import explain_failure
from ..distributed.memory import moments_of
from ..engine.batch_norm import check_batch_norm
from ..engine.before_start import classes_by_config
from ..engine.build import build_network
from ..engine.classes import check_class_weights, check_single_channels, differing_heads
from ..engine.config import heads_of
from ..engine.options import RunOptions
from ..engine.run import prepare_run
from ..errors import InputError
from .advice import advise
from .data import check_data
from .environment import check_environment
from .findings import FAULT, Finding, fault, warning
from .memory import MemoryEstimate, predict
from .run_shape import RunShape, run_shape_of
from .timing import rates_of_run, seconds_of
from .weights import check_weights


@dataclass
class Report:
    """Results of all checks.

    Attributes:
        findings: Faults and warnings.
        notes: Lines on settings of the config that have no or another effect.
        data: Numbers of images and of decoded pairs, by split.
        weights: Size of each file, and the share of its values that was read.
        environment: Versions, kernels, disk space and shared memory.
        shape: Sizes of the run.
        estimates: Memory of every strategy of running it.
        seconds: Seconds of an iteration by name of a strategy; empty where no rate is known.
        rates: FLOP/s by kernel that they are computed from.
        advice: Ways to change a run that does not fit.
    """
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: dict = field(default_factory=dict)
    weights: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    shape: RunShape | None = None
    estimates: list[MemoryEstimate] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    advice: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether no fault was found."""
        return all(finding.level != FAULT for finding in self.findings)

    @property
    def chosen(self) -> MemoryEstimate | None:
        """Estimate of the strategy that the config runs with."""
        return next((each for each in self.estimates if each.chosen), None)


def run_checks(cfg: Config, options: RunOptions, ranks: int, memory: int | None,
               tflops: float | None = None,
               progress: Callable[[str], None] = lambda text: None) -> Report:
    """Checks a run before it starts.

    Args:
        cfg: Resolved config of the run.
        options: Options of the run, with the device that it will run on.
        ranks: Number of processes, one for each GPU.
        memory: Bytes of a GPU (of the host, for 'cpu').
        tflops: 10^12 FLOP/s of a GPU in the backbone's dtype, where there is none to measure.
        progress: Called with what comes next.
    """
    report = Report()
    progress('data')
    findings, report.data = check_data(cfg)
    report.findings += findings
    progress('weights')
    findings = check_network(cfg) + check_optimizer(cfg)
    report.findings += findings
    if findings:
        return report
    findings, report.weights = check_weights(cfg)
    report.findings += findings
    shape = _predict_memory(report, cfg, options, ranks, memory, progress)
    if shape is None:
        return report
    progress('environment')
    findings, report.environment = check_environment(cfg, shape)
    report.findings += findings
    progress('rates')
    _predict_time(report, cfg, options, tflops)
    findings, report.advice = advise(cfg, report.estimates, shape,
                                     lambda text: progress(f'memory: {text}'))
    report.findings += findings
    return report


def check_network(cfg: Config) -> list[Finding]:
    """Checks that the network can be built, for as many classes as the data has."""
    try:
        build_network(cfg, on_meta=True)
        check_class_weights(cfg)
        check_single_channels(cfg)
        all_classes = classes_by_config(cfg.data.train)
    except (InputError, TypeError, KeyError, ValueError, AssertionError) as error:
        return [fault('config', f'network or data cannot be built: {error}', 'correct it', 'model')]
    return [fault(
        'config', f'the head has {number} classes, the data {len(classes)}',
        f'set num_classes={len(classes)}', key)
        for classes in all_classes for key, number in differing_heads(cfg, classes)]


def check_optimizer(cfg: Config) -> list[Finding]:
    """Checks that the optimizer can be built and takes a step."""
    options = cfg.get('optimizer') or {}
    if 'type' not in options:
        return [fault('config', 'no type is given', 'set it, e.g. optimizer.type=AdamW',
                      'optimizer')]
    try:
        moments_of(options)
    except Exception as error:  # whatever an optimizer raises, its options are what is wrong
        reason = (str(error.args[0] if error.args else error).splitlines() or [repr(error)])[0]
        return [fault('config', f'{options["type"]} does not work with these options: {reason}',
                      'correct optimizer.type or the options beside it', 'optimizer')]
    return []


def _predict_memory(report: Report, cfg: Config, options: RunOptions, ranks: int,
                    memory: int | None, progress: Callable[[str], None]) -> RunShape | None:
    """Predicts the memory of all strategies; returns None if the network does not run."""
    try:
        run = prepare_run(cfg, options, splits=(), ranks=ranks)
        check_batch_norm(cfg, run.batch)
        report.shape = run_shape_of(run, memory)
        report.estimates = predict(cfg, report.shape, lambda text: progress(f'memory: {text}'))
        return report.shape
    except InputError as error:
        report.findings.append(fault('memory', str(error), 'correct the config'))
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        if loss := _loss_of_values(cfg):
            report.findings.append(warning(
                'memory', f'memory and time are not predicted: {loss} takes as many values as '
                f'labels hold, which a simulated step does not know ({lines[0]})',
                'try some iterations'))
            return None
        report.findings.append(fault(
            'config', f'the network does not run on what the pipeline returns: {lines[0]}',
            'correct model or data.train.pipeline', 'model'))
    return None


def _loss_of_values(cfg: Config) -> str | None:
    """Returns the first loss that selects values, whose number a simulated step cannot know."""
    for _, head in heads_of(cfg.model):
        losses = head.get('loss_decode') or []
        for loss in losses if isinstance(losses, (list, tuple)) else [losses]:
            if loss.get('type') == 'LovaszLoss' or loss.get('use_sigmoid'):
                return str(loss['type'])
    return None


def _predict_time(report: Report, cfg: Config, options: RunOptions,
                  tflops: float | None) -> None:
    calls = {kernel: call for each in report.estimates for kernel, call in each.calls.items()}
    try:
        found = rates_of_run(cfg, options, calls, tflops)
    except RuntimeError as error:
        reason = explain_failure(error) or str(error).splitlines()[0]
        report.findings.append(warning('environment', f'no time is predicted: {reason}',
                                       'run this where the GPU is free'))
        return
    if found is None:
        return
    rates, bandwidth = found
    report.rates = {str(kernel): rate for kernel, rate in rates.items()}
    report.seconds = {each.name: seconds_of(each, rates, bandwidth) for each in report.estimates}
