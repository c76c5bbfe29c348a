"""The report of the doctor as a page of text, and as JSON for programs."""
import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import torch

from ..units import GIB, MIB, format_bytes
from .checks import Report
from .findings import FAULT
from .kernels import Kernel
from .memory import MemoryEstimate
from .memory_tracker import KINDS
from .run_shape import RunShape

SHOWN = 12  # findings on the page
WIDTH = 80  # columns of the page, but for findings and paths
JSON_KEYS = {'master weights': 'masters'}  # the key that programs have always read


def page(report: Report, name: str) -> str:
    """Formats one page of text."""
    lines = [name, *_config(report), *_data(report), *_weights(report), *_environment(report),
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
        config=name, healthy=report.healthy, notes=report.notes,
        findings=[asdict(f) for f in report.findings],
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
        checkpoint_blocks=estimate.blocks, offload=estimate.offload, chosen=estimate.chosen,
        fits=estimate.fits, peak_bytes=estimate.peak,
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


def _config(report: Report) -> list[str]:
    return [line for i, note in enumerate(report.notes)
            for line in part('' if i else 'config', note)]


def _data(report: Report) -> list[str]:
    splits = [f'{split} {n["images"]} images ({n["decoded"]} decoded)'
              for split, n in report.data.items()]
    return part('data', ', '.join(splits)) if splits else []


def _weights(report: Report) -> list[str]:
    return [line for path, figures in report.weights.items()
            for line in part('weights', f'{path}: {figures["values_read"]:.0%} of the values '
                             'read')]


def _environment(report: Report) -> list[str]:
    env = report.environment
    if not env:
        return []
    gpus = [f'{count} x {name}' if count > 1 else name
            for name, count in Counter(env['gpus']).items()]
    return [
        *part('environment', f'Python {env["python"]}, PyTorch {env["torch"]}, mmcv '
              f'{env["mmcv"]}, mmseg {env["mmseg"]}; {env["cpus"]} CPUs, '
              f'{", ".join(gpus) or "no GPU"}'),
        *part('', f'attention: {env["attention"]}; RMSNorm: {env["rms_norm"]}; nccl: '
              f'{"yes" if env["nccl"] else "no"}, gloo: {"yes" if env["gloo"] else "no"}'),
        *part('disk', f'{env["checkpoints"]} checkpoints of '
              f'{format_bytes(env["checkpoint_bytes"])}; {format_bytes(env["disk_free"])} free '
              f'for {env["work_dir"]}')]


def _memory(report: Report) -> list[str]:
    shape, estimates = report.shape, report.estimates
    if shape is None or not estimates:
        return []
    unit, unit_name = unit_for(estimates)
    over, under, *rows = columns([
        ['', *(kind.rpartition(' ')[0] for kind in KINDS)],
        ['peak', *(kind.rpartition(' ')[2] for kind in KINDS)],
        *([f'{count / unit:.1f}' for count in (each.peak, *(each.parts[kind] for kind in KINDS))]
          for each in estimates)])
    lines = ['', *part('memory', f'predicted peak of {sizes_of(shape, unit_name)}'), over, under]
    for each, row in zip(estimates, rows):
        fits = '' if each.fits is None else ': fits' if each.fits else ': too large'
        host = f', and {each.host / GIB:.1f} GiB of the host' if each.host else ''
        lines += [f'{"*" if each.chosen else " "} {each.name}{fits}{host}', row]
    return [*lines, '  * is what the config runs']


def unit_for(estimates: Sequence[MemoryEstimate]) -> tuple[int, str]:
    """Returns the bytes of the unit that fits all estimates, and its name."""
    return (GIB, 'GiB') if max(each.peak for each in estimates) > 4 * GIB else (MIB, 'MiB')


def sizes_of(shape: RunShape, unit_name: str) -> str:
    """Describes the sizes of a run, and the memory that there is."""
    devices = f'{shape.ranks} GPU(s)' if shape.device == 'cuda' else (
        f'{shape.ranks} process(es) on the CPU')
    available = f'; {format_bytes(shape.usable)} are available' if (
        shape.usable is not None) else ''
    return (f'each of {devices}, {shape.images} images of {shape.crop[0]}x{shape.crop[1]}, in '
            f'{unit_name}{available}')


def _time(report: Report) -> list[str]:
    shape, chosen = report.shape, report.chosen
    if shape is None or chosen is None:
        return []
    text = f'{figure(sum(chosen.flops.values()) / 1e12)} TFLOP per iteration and process'
    if not report.seconds:
        return part('time', text + '; no GPU here to measure a rate on (--tflops gives one)')
    given = not torch.cuda.is_available() and shape.device == 'cuda'
    rates = ', '.join(f'{figure(rate / 1e12)} for {kernel}'
                      for kernel, rate in report.rates.items())
    return [*part('time', text),
            *part('', f'about {figure(report.seconds[chosen.name])} s, without communication and '
                  'loading'),
            *part('', f'TFLOP/s {"assumed" if given else "measured here"}: {rates}')]


def part(name: str, text: str) -> list[str]:
    """Formats a part of the page, in lines that fit a terminal."""
    return textwrap.wrap(text, WIDTH, initial_indent=f'{name:<13}', subsequent_indent=' ' * 13,
                         break_long_words=False, break_on_hyphens=False)


def figure(value: float) -> str:
    """Formats a number with three digits, or all those before the point."""
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Formats rows of numbers under their headings, in columns as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ['  ' + '  '.join(cell.rjust(width) for cell, width in zip(row, widths)).rstrip()
            for row in rows]
