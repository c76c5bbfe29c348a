"""The report of the doctor as a page of text, and as JSON for programs."""
import json
from collections import Counter
from dataclasses import asdict

import torch

from ..units import GIB, MIB, format_bytes
from .checks import Report
from .findings import FAULT
from .kernels import Kernel
from .memory import MemoryEstimate
from .memory_tracker import KINDS

SHOWN = 12  # findings on the page
JSON_KEYS = {'master weights': 'masters'}  # the key that programs have always read


def page(report: Report, name: str) -> str:
    """Formats one page of text."""
    lines = [name, *_data(report), *_weights(report), *_environment(report),
             *_memory(report), *_time(report), '']
    findings = sorted(report.findings, key=lambda f: f.level != FAULT)
    lines += [f'{f.level.upper():<8}{f.part}: {f.line()}' for f in findings[:SHOWN]]
    if len(findings) > SHOWN:
        lines.append(f'        ... and {len(findings) - SHOWN} more: --json lists all')
    lines += [f'  fits: {advice}' for advice in report.advice]
    faults = sum(f.level == FAULT for f in findings)
    lines.append('healthy: no faults found' if report.healthy else f'{faults} fault(s)')
    return '\n'.join(lines)


def as_json(report: Report, name: str) -> str:
    """Formats all results for programs."""
    shape = report.shape
    content = dict(
        config=name, healthy=report.healthy, findings=[asdict(f) for f in report.findings],
        data=report.data, weights=report.weights, environment=report.environment,
        memory=dict(device=shape.device, ranks=shape.ranks, images=shape.images, crop=shape.crop,
                    memory_bytes=shape.memory, usable_bytes=shape.usable,
                    modes=[_estimate_as_dict(each, report.seconds.get(each.name))
                           for each in report.estimates]) if shape else None,
        rates=report.rates, advice=report.advice)
    return json.dumps(content, indent=1)


def _estimate_as_dict(estimate: MemoryEstimate, seconds: float | None) -> dict:
    return dict(
        name=estimate.name, engine=estimate.engine, checkpointing=estimate.checkpointing,
        offload=estimate.offload, chosen=estimate.chosen, fits=estimate.fits,
        peak_bytes=estimate.peak,
        parts={JSON_KEYS.get(kind, kind): count for kind, count in estimate.parts.items()},
        host_bytes=estimate.host, when=estimate.when,
        flops=_by_dtype(estimate.flops),
        flops_by_kernel={str(kernel): count for kernel, count in estimate.flops.items()},
        seconds=seconds)


def _by_dtype(flops: dict[Kernel, int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for kernel, count in flops.items():
        counts[str(kernel.dtype).removeprefix('torch.')] += count
    return counts


def _data(report: Report) -> list[str]:
    splits = [f'{split} {n["images"]} images ({n["decoded"]} decoded)'
              for split, n in report.data.items()]
    return [f'data         {", ".join(splits)}'] if splits else []


def _weights(report: Report) -> list[str]:
    return [f'weights      {path}: {figures["values_read"]:.0%} of the values read'
            for path, figures in report.weights.items()]


def _environment(report: Report) -> list[str]:
    env = report.environment
    if not env:
        return []
    return [
        f'environment  Python {env["python"]}, PyTorch {env["torch"]}, mmcv {env["mmcv"]}, mmseg '
        f'{env["mmseg"]}; {env["cpus"]} CPUs, {", ".join(env["gpus"]) or "no GPU"}',
        f'             attention: {env["attention"]}; RMSNorm: {env["rms_norm"]}; nccl: '
        f'{"yes" if env["nccl"] else "no"}, gloo: {"yes" if env["gloo"] else "no"}',
        f'disk         {env["checkpoints"]} checkpoints of {format_bytes(env["checkpoint_bytes"])};'
        f' {format_bytes(env["disk_free"])} free for {env["work_dir"]}']


def _memory(report: Report) -> list[str]:
    shape, estimates = report.shape, report.estimates
    if shape is None or not estimates:
        return []
    unit, unit_name = (GIB, 'GiB') if max(e.peak for e in estimates) > 4 * GIB else (MIB, 'MiB')
    devices = f'{shape.ranks} GPU(s)' if shape.device == 'cuda' else (
        f'{shape.ranks} process(es) on the CPU')
    available = f'; {format_bytes(shape.usable)} are available' if shape.usable else ''
    lines = ['', f'memory       predicted peak of each of {devices}, {shape.images} images of '
             f'{shape.crop[0]}x{shape.crop[1]}, in {unit_name}{available}',
             f'  {"":<32}{"peak":>8}' + ''.join(f'  {kind:>8}' for kind in KINDS)]
    for each in estimates:
        mark = '*' if each.chosen else ' '
        fits = '' if each.fits is None else '  fits' if each.fits else '  too large'
        host = f'  + {each.host / GIB:.1f} GiB host' if each.host else ''
        lines.append(f'{mark} {each.name:<32}{each.peak / unit:>8.1f}' + ''.join(
            f'  {each.parts[kind] / unit:>{max(len(kind), 8)}.1f}' for kind in KINDS) + fits + host)
    return [*lines, '  * is what the config runs']


def _time(report: Report) -> list[str]:
    shape, chosen = report.shape, report.chosen
    if shape is None or chosen is None:
        return []
    text = f'time         {sum(chosen.flops.values()) / 1e12:.3g} TFLOP per iteration and process'
    if not report.seconds:
        return [text + '; no GPU here to measure a rate on (--tflops gives one)']
    given = not torch.cuda.is_available() and shape.device == 'cuda'
    rates = ', '.join(f'{rate / 1e12:.3g} for {kernel}' for kernel, rate in report.rates.items())
    return [text, f'             about {report.seconds[chosen.name]:.3g} s, without communication '
            'and loading',
            f'             TFLOP/s {"assumed" if given else "measured here"}: {rates}']
