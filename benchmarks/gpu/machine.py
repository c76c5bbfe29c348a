"""The card, its software, its peak rates, and the attention kernels beside each other."""
import platform
import shutil
import subprocess
import time

import torch
import torch.utils.deterministic
from common import arguments, matmul_rate, report, seconds_per_call, write
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmseg_custom.layers import attention
from mmseg_custom.layers.resize import resize_bilinear
from mmseg_custom.units import GIB

KERNELS = ('CUDNN_ATTENTION', 'FLASH_ATTENTION', 'EFFICIENT_ATTENTION')
MODULES = ('flash_attn_interface', 'flash_attn')
SHAPE, TINY_SHAPE = (2, 1297, 25, 128), (1, 37, 2, 32)  # batch, tokens, heads, channels


def facts(device: str) -> dict[str, object]:
    """Names what was measured on."""
    found: dict[str, object] = dict(
        date=time.strftime('%Y-%m-%d'), python=platform.python_version(), torch=torch.__version__,
        cpus=torch.get_num_threads())
    if device == 'cuda':
        card = torch.cuda.get_device_properties(0)
        found.update(card=card.name, capability=f'{card.major}.{card.minor}',
                     memory_gib=card.total_memory / GIB, cuda=torch.version.cuda,
                     cudnn=torch.backends.cudnn.version())
    return found


def clocks() -> dict[str, str]:
    """Asks the driver for its version, clocks and power; empty where nvidia-smi does not answer."""
    fields = ('driver_version', 'clocks.sm', 'clocks.mem', 'power.draw', 'temperature.gpu')
    if not shutil.which('nvidia-smi'):
        return {}
    try:
        text = subprocess.check_output(
            ['nvidia-smi', '--query-gpu=' + ','.join(fields), '--format=csv,noheader', '-i', '0'],
            text=True, timeout=10)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return {}
    return dict(zip(fields, (word.strip() for word in text.split(','))))


def copy_rate(device: str, tiny: bool) -> float:
    """Measures the bytes/s that a copy on the device reads and writes."""
    source = torch.randn((1 << 20) if tiny else (1 << 29), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_per_call(lambda: target.copy_(source), device,
                                                0.05 if tiny else 0.3)


def attention_times(device: str, tiny: bool) -> dict[str, dict[str, float | str]]:
    """Measures each kernel: microseconds forward, forward and backward, and deterministic."""
    found = {}
    for name in KERNELS:
        with sdpa_kernel(getattr(SDPBackend, name)):
            found[name] = _times(attention.sdpa, device, tiny)
    for module in MODULES:
        if (function := attention._flash_attn(module)) is not None:
            found[module] = _times(attention._on_flash(function), device, tiny)
    return found


def _times(kernel: attention.Kernel, device: str, tiny: bool) -> dict[str, float | str]:
    q, k, v = (torch.randn(TINY_SHAPE if tiny else SHAPE, device=device, dtype=torch.bfloat16,
                           requires_grad=True) for _ in range(3))
    gradient = torch.randn_like(q)

    def forward() -> None:
        with torch.no_grad():
            kernel(q, k, v)

    def both() -> None:
        torch.autograd.grad(kernel(q, k, v), (q, k, v), gradient)

    times: dict[str, float | str] = {}
    for name, work, strict in (('forward_us', forward, False), ('both_us', both, False),
                               ('both_deterministic_us', both, True)):
        torch.use_deterministic_algorithms(strict)
        try:
            times[name] = 1e6 * seconds_per_call(work, device, 0.02 if tiny else 0.2)
        except RuntimeError as error:  # a kernel that this device, or the strict mode, refuses
            times[name] = str(error).splitlines()[0][:100]
    torch.use_deterministic_algorithms(False)
    return times


def resize_times(device: str, tiny: bool) -> dict[str, float]:
    """Measures UperNet's largest resize there and back, as PyTorch does it and deterministic."""
    channels, side = (8, 12) if tiny else (1536, 72)
    maps = torch.randn(2, channels, side, side, device=device, requires_grad=True)
    gradient = torch.randn(2, channels, 2 * side, 2 * side, device=device)

    def both() -> None:
        torch.autograd.grad(resize_bilinear(maps, (2 * side, 2 * side)), maps, gradient)

    found = {}
    for name, strict in (('usual_us', False), ('deterministic_us', True)):
        torch.use_deterministic_algorithms(strict)
        found[name] = 1e6 * seconds_per_call(both, device, 0.02 if tiny else 0.2)
    torch.use_deterministic_algorithms(False)
    return found


def main() -> None:
    """Measures and reports."""
    args = arguments(__doc__)
    # As in a run: else strict modes fill every new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    figures = dict(facts(args.device), **clocks())
    figures['matmul_tflops'] = matmul_rate(args.device, args.tiny) / 1e12
    figures['clocks_after'] = clocks()
    figures['copy_tb_per_s'] = copy_rate(args.device, args.tiny) / 1e12
    figures['sdpa_takes'] = attention.sdpa_backend() if args.device == 'cuda' else 'cpu'
    write(figures, [], args.json)
    figures['attention'] = attention_times(args.device, args.tiny)
    figures['resize'] = resize_times(args.device, args.tiny)
    report(figures, [], args.json)


if __name__ == '__main__':
    main()
