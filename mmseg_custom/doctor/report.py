"""The doctor's page, and the same for programs."""
import json

import torch

from .checks import Examination
from .findings import FAULT
from .memory import GIB, MIB
from .memory_tracker import KINDS

SHOWN = 12  # findings on the page


def page(found: Examination, name: str) -> str:
    """One page of text."""
    lines = [f'{name}', *_data(found), *_weights(found), *_environment(found), *_memory(found),
             *_time(found), '']
    findings = sorted(found.findings, key=lambda f: f.level != FAULT)
    lines += [f'{f.level.upper():<8}{f.part}: {f.line()}' for f in findings[:SHOWN]]
    if len(findings) > SHOWN:
        lines.append(f'        ... and {len(findings) - SHOWN} more: --json lists all')
    for advice in found.advice:
        lines.append(f'  fits: {advice}')
    faults = sum(f.level == FAULT for f in findings)
    lines.append('healthy: nothing stands against this run' if found.healthy
                 else f'{faults} fault(s)')
    return '\n'.join(lines)


def as_json(found: Examination, name: str) -> str:
    """Everything, for programs."""
    plan = found.plan
    content = dict(
        config=name, healthy=found.healthy, findings=[f.as_dict() for f in found.findings],
        data=found.data, weights=found.weights, environment=found.environment,
        memory=dict(device=plan.device, ranks=plan.ranks, images=plan.images, crop=plan.crop,
                    memory_bytes=plan.memory, usable_bytes=plan.usable,
                    modes=[{**mode.as_dict(), 'flops': {str(d).removeprefix('torch.'): n
                                                        for d, n in mode.flops.items()},
                            'seconds': found.seconds.get(mode.name)}
                           for mode in found.modes]) if plan else None,
        rates=found.rates, advice=found.advice)
    return json.dumps(content, indent=1)


def _data(found: Examination) -> list[str]:
    splits = [f'{split} {n["images"]} images ({n["decoded"]} decoded)'
              for split, n in found.data.items()]
    return [f'data         {", ".join(splits)}'] if splits else []


def _weights(found: Examination) -> list[str]:
    return [f'weights      {path}: {figures["values_read"]:.0%} of the values read'
            for path, figures in found.weights.items()]


def _environment(found: Examination) -> list[str]:
    env = found.environment
    if not env:
        return []
    return [
        f'environment  Python {env["python"]}, PyTorch {env["torch"]}, mmcv {env["mmcv"]}, mmseg '
        f'{env["mmseg"]}; {env["cpus"]} CPUs, {", ".join(env["gpus"]) or "no GPU"}',
        f'             attention: {env["attention"]}; RMSNorm: {env["rms_norm"]}; nccl: '
        f'{"yes" if env["nccl"] else "no"}, gloo: {"yes" if env["gloo"] else "no"}',
        f'disk         {env["checkpoints"]} checkpoints of {env["checkpoint_bytes"] / MIB:,.0f} '
        f'MiB; {env["disk_free"] / GIB:,.1f} GiB free for {env["work_dir"]}']


def _memory(found: Examination) -> list[str]:
    plan = found.plan
    if not found.modes:
        return []
    unit, unit_name = (GIB, 'GiB') if max(m.peak for m in found.modes) > 4 * GIB else (MIB, 'MiB')
    each = f'of each of {plan.ranks} GPU(s)' if plan.device == 'cuda' else (
        f'of each of {plan.ranks} process(es) on the CPU')
    room = f'; {plan.usable / GIB:.1f} GiB are there' if plan.usable else ''
    lines = ['', f'memory       predicted peak {each}, {plan.images} images of '
             f'{plan.crop[0]}x{plan.crop[1]}, in {unit_name}{room}',
             f'  {"":<32}{"peak":>8}' + ''.join(f'{k[:9]:>10}' for k in KINDS)]
    for mode in found.modes:
        mark = '*' if mode.chosen else ' '
        fits = '' if mode.fits is None else '  fits' if mode.fits else '  too large'
        host = f'  + {mode.host / GIB:.1f} GiB host' if mode.host else ''
        lines.append(f'{mark} {mode.name:<32}{mode.peak / unit:>8.1f}' + ''.join(
            f'{mode.parts[k] / unit:>10.1f}' for k in KINDS) + fits + host)
    return [*lines, '  * is what the config runs']


def _time(found: Examination) -> list[str]:
    chosen = found.chosen
    if chosen is None:
        return []
    flops = sum(chosen.flops.values())
    text = f'time         {flops / 1e12:.3g} TFLOP an iteration and process'
    if not found.seconds:
        return [text + '; no GPU here to measure a rate on (--tflops gives one)']
    where = ('given' if not torch.cuda.is_available() and found.plan.device == 'cuda'
             else 'measured here')
    rates = ', '.join(f'{rate / 1e12:.3g} TFLOP/s in {dtype}' for dtype, rate in
                      found.rates.items())
    return [text, f'             about {found.seconds[chosen.name]:.3g} s at {rates} ({where}), '
            'without communication and loading']
