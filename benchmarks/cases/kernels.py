"""The attention kernels beside each other, and UperNet's largest resize, also deterministic."""
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.utils.deterministic
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.context import Context
from benchmarks.registry import benchmark
from mmseg_custom.layers import attention
from mmseg_custom.layers.resize import resize_bilinear

KERNELS = ('CUDNN_ATTENTION', 'FLASH_ATTENTION', 'EFFICIENT_ATTENTION')
MODULES = ('flash_attn_interface', 'flash_attn')
SHAPE, TINY_SHAPE = (2, 1297, 25, 128), (1, 37, 2, 32)  # batch, tokens, heads, channels
USUAL = 'the usual kernel'


def kernels_here() -> dict[str, tuple[attention.Kernel, str | None]]:
    """Returns the kernels: name -> function, and PyTorch's name of it."""
    found: dict[str, tuple[attention.Kernel, str | None]] = {
        name: (attention.sdpa, name) for name in KERNELS}
    for module in MODULES:
        if (function := attention._flash_attn(module)) is not None:
            found[module] = attention._on_flash(function), None
    return found


def refusal(work: Callable[[], object]) -> str | None:
    """Says why a kernel refuses its work, or None."""
    try:
        work()
    except RuntimeError as error:
        return str(error).splitlines()[0][:100]
    return None


def rows_of_attention(run: Context, title: str, backward: bool, strict: bool) -> None:
    """Measures all kernels in turns; the row is that of the kernel that SDPA takes by itself."""
    q, k, v = (torch.randn(TINY_SHAPE if run.tiny else SHAPE, device=run.device,
                           dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    gradient = torch.randn_like(q)
    work: dict[str, Callable[[], object]] = {}
    for name, (kernel, backend) in {**kernels_here(), 'SDPA': (attention.sdpa, None)}.items():
        def call(kernel=kernel, backend=backend) -> None:
            with sdpa_kernel(getattr(SDPBackend, backend)) if backend else nullcontext():
                with torch.set_grad_enabled(backward):
                    out = kernel(q, k, v)
                if backward:
                    torch.autograd.grad(out, (q, k, v), gradient)
        work[name] = call
    torch.use_deterministic_algorithms(strict)
    try:
        for name in list(work):
            if (reason := refusal(work[name])) is not None:
                run.fact(**{f'{title}, {name}': reason})
                del work[name]
        if 'SDPA' in work:
            times = run.measure(work, seconds=0.3)
            run.row(title, 'us', times.pop('SDPA'), times)
    finally:
        torch.use_deterministic_algorithms(False)


def row_of_resize(run: Context) -> None:
    """Measures UperNet's largest resize there and back."""
    channels, side = (8, 12) if run.tiny else (1536, 72)
    maps = torch.randn(2, channels, side, side, device=run.device, requires_grad=True)
    gradient = torch.randn(2, channels, 2 * side, 2 * side, device=run.device)

    def resize(strict: bool) -> None:
        torch.use_deterministic_algorithms(strict)
        torch.autograd.grad(resize_bilinear(maps, (2 * side, 2 * side)), maps, gradient)
        torch.use_deterministic_algorithms(False)

    times = run.measure({'strict': lambda: resize(True), USUAL: lambda: resize(False)}, seconds=0.5)
    run.row("UperNet's largest resize, with backward, deterministic", 'us', times['strict'],
            {USUAL: times[USUAL]})


@benchmark("Attention kernels, and UperNet's largest resize", minutes=1.5, suite=('cuda',),
           order=45)
def case(run: Context) -> None:
    """Measures forward, with backward, and deterministic."""
    # As in a run: else strict modes fill every new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if run.on_gpu:
        run.fact(sdpa_takes=attention.sdpa_backend())
    rows_of_attention(run, 'attention of two crops, forward', backward=False, strict=False)
    rows_of_attention(run, 'attention of two crops, with backward', backward=True, strict=False)
    rows_of_attention(run, 'attention of two crops, with backward, deterministic', backward=True,
                      strict=True)
    row_of_resize(run)
