"""The machine that is measured on: its hardware and the versions of its software.

`python -m benchmarks.machine [cuda | cpu]` prints them as JSON, in a process of its own.
"""
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ('torch', 'torchvision', 'timm', 'mmcv-full', 'mmsegmentation', 'torchao', 'triton',
            'transformers', 'flash-attn', 'numpy')
NO_GPU = 4  # exit code where the device cannot be used


def describe(device: str) -> dict[str, dict]:
    """Describes hardware and versions, for the file of results."""
    import torch
    machine: dict[str, object] = dict(
        name=cpu_name(), cpu=cpu_name(), threads=torch.get_num_threads(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        memory_gib=round(_memory_bytes() / 2 ** 30, 1),
        load_average=round(os.getloadavg()[0], 1))  # with what others compute
    versions = dict(python=platform.python_version(), **package_versions())
    versions['torch'] = torch.__version__  # with the variant of the build
    if device == 'cuda':
        card = torch.cuda.get_device_properties(0)
        machine.update(name=card.name, gpu=card.name, gpus=torch.cuda.device_count(),
                       capability=f'{card.major}.{card.minor}',
                       gpu_memory_gib=round(card.total_memory / 2 ** 30, 1),
                       driver=ask_driver('driver_version').get('driver_version', 'unknown'))
        versions.update(cuda=str(torch.version.cuda), cudnn=str(torch.backends.cudnn.version()))
    return dict(machine=machine, versions=versions)


def package_versions() -> dict[str, str]:
    """Returns the versions of the packages that compute, of those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def ask_driver(*fields: str) -> dict[str, str]:
    """Asks the driver of GPU 0; empty where nvidia-smi does not answer."""
    if not shutil.which('nvidia-smi'):
        return {}
    try:
        text = subprocess.check_output(
            ['nvidia-smi', '--query-gpu=' + ','.join(fields), '--format=csv,noheader', '-i', '0'],
            text=True, timeout=10)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return {}
    return dict(zip(fields, (word.strip() for word in text.split(','))))


def cpu_name() -> str:
    """Returns the model of the CPU."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            return next(line.partition(':')[2].strip() for line in file
                        if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def main() -> None:
    """Prints hardware, versions and the device, or says that there is no GPU."""
    import torch
    device = sys.argv[1] if len(sys.argv) > 1 else (
        'cuda' if torch.cuda.is_available() else 'cpu')
    if device == 'cuda' and not torch.cuda.is_available():
        print(f'error: no CUDA GPU that PyTorch {torch.__version__} can use; --device cpu --tiny '
              'tries the benchmarks', file=sys.stderr)
        sys.exit(NO_GPU)
    print(json.dumps(dict(device=device, **describe(device))))


if __name__ == '__main__':
    main()
