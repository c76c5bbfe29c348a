"""The doctor's page, as a person sees it."""
import torch

from mmseg_custom.doctor.checks import Report
from mmseg_custom.doctor.findings import warning
from mmseg_custom.doctor.kernels import Kernel
from mmseg_custom.doctor.memory import MemoryEstimate
from mmseg_custom.doctor.memory_tracker import KINDS
from mmseg_custom.doctor.report import page
from mmseg_custom.doctor.run_shape import RunShape
from mmseg_custom.units import GIB

KERNELS = [Kernel(kind, dtype) for kind in ('matrix products', 'convolutions', 'attention')
           for dtype in (torch.bfloat16, torch.float32)]


def a_report(unit: int) -> Report:
    """A report of a run with large numbers everywhere."""
    parts = {kind: int((1234.56 + i) * unit) for i, kind in enumerate(KINDS)}
    estimates = [MemoryEstimate('fsdp2', True, offload, parts, host=99 * GIB, chosen=offload,
                                fits=offload, flops={KERNELS[0]: 10**15})
                 for offload in (False, True)]
    return Report(
        findings=[warning('data', 'a doubt', 'look at it')],
        data={split: dict(images=118_287, decoded=10_000) for split in ('train', 'val')},
        weights={'pretrained/intern_vit_6b_224px.pth': dict(values_read=.25)},
        environment=dict(
            python='3.12.11', torch='2.11.0+cu130', mmcv='1.7.2', mmseg='0.30.0', cpus=192,
            gpus=['NVIDIA H100 80GB HBM3'] * 8, attention='flash-attn 3', rms_norm='apex', nccl=1,
            gloo=1, checkpoints=80, checkpoint_bytes=60 * GIB, disk_free=900 * GIB,
            work_dir='/mnt/scratch/a_folder/work_dirs/upernet_intern_vit_6b_504_80k'),
        shape=RunShape('cuda', 64, 2, (504, 504), memory=80 * GIB), estimates=estimates,
        seconds={each.name: 12.5 for each in estimates},
        rates={str(kernel): 123.4e12 for kernel in KERNELS})


def test_everything_is_there_in_80_columns():
    lines = page(a_report(GIB), 'configs/x.py').splitlines()
    text = '\n'.join(lines)
    assert max(map(len, lines)) <= 80 and '8 x NVIDIA H100 80GB HBM3' in text
    at = next(i for i, line in enumerate(lines) if line.split()[:2] == ['peak', 'weights'])
    assert lines[at].split()[-4:] == ['optimizer', 'activations', 'head', 'workspace']
    assert lines[at + 1] == '  fsdp2 + checkpointing: too large, and 99.0 GiB of the host'
    assert lines[at + 3] == '* fsdp2 + offload + checkpointing: fits, and 99.0 GiB of the host'
    assert lines[at + 2].split()[0] == '8662.9' and lines[at + 2].split()[-1] == '1240.6'
    ends = [line.rindex(word) + len(word) for line, word in
            ((lines[at], 'activations'), (lines[at + 2], '1238.6'))]
    assert ends[0] == ends[1]
    assert '1,000 TFLOP' in text and text.count('attention in') == 2
