"""The device of a process: which one it is, and in one line why a GPU cannot be used."""
import glob
import logging
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..units import GIB, format_bytes

HIDDEN = ('', '-1', 'NoDevFiles')  # values of CUDA_VISIBLE_DEVICES; the last one is Slurm's
TAKEN = 0.1  # share of a GPU's memory in other hands that is worth a word, if at least a GiB
_ARCH = r'(sm|compute)_(\d+)(\d)([af]?)'
INSTALL = 'https://pytorch.org/get-started/locally'


@dataclass(frozen=True)
class GPUProblem:
    """Why PyTorch can use no GPU.

    Attributes:
        reason: What was found.
        way_out: What to do.
        unexpected: Whether there is a GPU all the same, and nothing says that it is not to be
            used, so that a run on the CPU would surprise.
        worth_a_warning: Whether the machine has a card that this process does not see.
    """
    reason: str
    way_out: str
    unexpected: bool = False
    worth_a_warning: bool = False

    @property
    def text(self) -> str:
        """Reason and way out, in one line."""
        return f'{self.reason}: {self.way_out}'


@dataclass(frozen=True)
class GPUFacts:
    """What :func:`diagnose` decides by.

    Attributes:
        build: CUDA version that PyTorch was built with; None without CUDA.
        error: Message with which CUDA did not start; None if it did.
        visible: Value of CUDA_VISIBLE_DEVICES.
        files: Number of device files of GPUs, /dev/nvidia0 ..., that this process sees.
        driver: Version of the NVIDIA driver; None if none is loaded.
        cards: Number of NVIDIA's display controllers on the bus.
    """
    build: str | None
    error: str | None
    visible: str | None = None
    files: int = 0
    driver: str | None = None
    cards: int = 0


def choose_device(asked: str | None = None) -> str:
    """Returns the device asked for, by default 'cuda' where the machine has a GPU, else 'cpu'.

    A GPU that is there and cannot be used ends in an error rather than in a run on the CPU, for
    which someone would wait in vain.

    Args:
        asked: 'cuda', 'cpu', or None for the default.

    Raises:
        InputError: If a GPU is asked for, or is there, and cannot be used; it says why.
    """
    if asked == 'cpu':
        return 'cpu'
    problem = gpu_problem()
    if problem is None:
        return 'cuda'
    if asked == 'cuda':
        raise InputError(f'--device cuda: {problem.text}, or use --device cpu')
    if problem.unexpected:
        raise InputError(f'{problem.text}, or use --device cpu')
    if problem.worth_a_warning:
        logging.getLogger('mmseg').warning('running on the CPU: %s', problem.text)
    return 'cpu'


def gpu_problem() -> GPUProblem | None:
    """Returns why PyTorch can use no GPU of this machine; None if it can."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's own, of several lines, about the same
        return None if torch.cuda.is_available() else diagnose(_read_facts())


def diagnose(facts: GPUFacts) -> GPUProblem:
    """Tells the reasons apart for which PyTorch can use no GPU."""
    here = facts.files > 0
    if facts.visible is not None and facts.visible.strip() in HIDDEN:
        return GPUProblem(f'CUDA_VISIBLE_DEVICES={facts.visible!r} hides all GPUs',
                          'name one in it, or unset it')
    if facts.build is None:
        return GPUProblem(f'this PyTorch ({torch.__version__}) was built without CUDA',
                          f'install one with it ({INSTALL})', here, here or facts.cards > 0)
    error = facts.error or 'no reason was given'
    if 'too old' in error:
        return GPUProblem(
            f'the NVIDIA driver ({facts.driver or "of unknown version"}) is too old for this '
            f'PyTorch, which was built for CUDA {facts.build}',
            f'update the driver, or install a PyTorch for an older CUDA ({INSTALL})', True, True)
    if not here and facts.driver is not None:
        return GPUProblem(
            f'an NVIDIA driver ({facts.driver}) is loaded, but this process sees no device file '
            '/dev/nvidia*', 'start a container with --gpus all, or ask the scheduler for a GPU',
            False, True)
    if not here:
        return GPUProblem('this machine has no NVIDIA GPU' if not facts.cards else
                          f'this machine has {facts.cards} NVIDIA card(s), but no driver for them',
                          'take a machine with a GPU and its driver', False, facts.cards > 0)
    if facts.visible is not None and 'No CUDA GPUs' in error:
        return GPUProblem(
            f'CUDA_VISIBLE_DEVICES={facts.visible!r} names no GPU of this machine, which has '
            f'{facts.files}', 'name one of them (nvidia-smi -L lists them), or unset it', True,
            True)
    return GPUProblem(
        f'CUDA does not start ({error.strip().splitlines()[0]})',
        'start nvidia-fabricmanager, which this machine needs' if '802' in error
        else 'see nvidia-smi and dmesg', True, True)


def use_gpu(index: int = 0) -> None:
    """Makes a GPU the device of this process.

    Args:
        index: Number of the GPU among the visible ones.

    Raises:
        InputError: If there is no GPU of this number, or it cannot be used.
    """
    count = torch.cuda.device_count()
    if not 0 <= index < count:
        raise InputError(f'--gpu-id {index}: expected 0..{count - 1}, as {count} GPU(s) are '
                         f'visible{_visible()}')
    name = f'GPU {index} ({torch.cuda.get_device_name(index)})'
    missing = missing_kernels(torch.cuda.get_device_capability(index), torch.cuda.get_arch_list())
    if missing:
        raise InputError(f'{name} {missing}')
    try:
        torch.cuda.set_device(index)
        torch.cuda.mem_get_info(index)  # the first call that needs a context on it
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f'{name} takes no process ({reason}): end those that fill or hold it '
                         '(nvidia-smi lists them), or choose another by --gpu-id or '
                         'CUDA_VISIBLE_DEVICES') from error


def missing_kernels(capability: tuple[int, int], archs: Sequence[str]) -> str | None:
    """Returns what is wrong with a GPU that a PyTorch has no kernels for.

    A kernel ``sm_86`` runs on devices of capability 8.6 to 8.9, an ``sm_90a`` on 9.0 alone, and
    the portable code ``compute_90`` on 9.0 and all later ones.

    Args:
        capability: Compute capability of the GPU, e.g. (9, 0).
        archs: Architectures that PyTorch was built for, as ``torch.cuda.get_arch_list()`` has them.
    """
    if not archs or not all(re.fullmatch(_ARCH, arch) for arch in archs):
        return None  # another platform, such as gfx90a of ROCm
    if any(_runs_on(arch, capability) for arch in archs):
        return None
    major, minor = capability
    return (f'has compute capability {major}.{minor}, for which this PyTorch '
            f'({torch.__version__}) has no kernels (only {", ".join(archs)}): install a PyTorch '
            'built for it (https://pytorch.org/get-started/previous-versions), or use another GPU '
            'or --device cpu')


def _runs_on(arch: str, capability: tuple[int, int]) -> bool:
    kind, major, minor, suffix = re.findall(_ARCH, arch)[0]
    built = int(major), int(minor)
    if suffix == 'a':
        return built == capability
    if kind == 'sm' or suffix:
        return built[0] == capability[0] and built <= capability
    return built <= capability


def taken_by_others(index: int) -> str | None:
    """Returns a line on the memory of a GPU that is not free, where it is worth a word.

    Called before this process has put anything there, its own context apart.
    """
    free, total = torch.cuda.mem_get_info(index)
    if total - free < max(TAKEN * total, GIB):
        return None
    return (f'GPU {index} ({torch.cuda.get_device_name(index)}): {format_bytes(total - free)} of '
            f'{format_bytes(total)} are taken already: other processes use it (nvidia-smi lists '
            'them)')


def memory_for_run(index: int) -> int:
    """Returns the bytes of a GPU that a run may take.

    All of it, so that a resumed run finds the same, unless other processes hold some. Called
    before this process has put anything there, its own context apart.
    """
    free, total = torch.cuda.mem_get_info(index)
    return free // GIB * GIB if taken_by_others(index) else total


def _read_facts() -> GPUFacts:
    error = None
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as raised:  # the latter from builds without CUDA
        error = str(raised)
    return GPUFacts(
        torch.version.cuda or torch.version.hip, error, os.environ.get('CUDA_VISIBLE_DEVICES'),
        files=len(glob.glob('/dev/nvidia[0-9]*')), driver=_driver_version(), cards=_count_cards())


def _driver_version() -> str | None:
    try:
        with open('/proc/driver/nvidia/version') as file:
            found = re.search(r'\d+\.\d+(\.\d+)?', file.readline())
    except OSError:
        return None
    return found.group() if found else 'of unknown version'


def _count_cards() -> int:
    """Counts the display controllers (PCI class 03) of NVIDIA (vendor 10de)."""
    count = 0
    for path in glob.glob('/sys/bus/pci/devices/*/vendor'):
        try:
            with open(path) as vendor, open(os.path.join(os.path.dirname(path), 'class')) as kind:
                count += vendor.read().strip() == '0x10de' and kind.read().startswith('0x03')
        except OSError:
            continue  # unplugged or hidden
    return count


def _visible() -> str:
    value = os.environ.get('CUDA_VISIBLE_DEVICES')
    return '' if value is None else f' (CUDA_VISIBLE_DEVICES={value!r})'
