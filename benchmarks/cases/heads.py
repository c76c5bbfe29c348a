"""UPerNet alone, forward and backward: convolutions in float32 or bfloat16, channels first or last.

The head of head tuning at its real size (channels 1536, maps of 3200 channels of two crops of
504x504), from maps in the form that the backbone has them to the gradients of weights and maps. On
the CPU widths and sides of the grid are a quarter of that. The auxiliary head and the pyramid are
left out.

    python -m benchmarks heads
"""
from collections.abc import Callable

import torch
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.models import build_head
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.context import Context, at_least
from benchmarks.networks import IMAGES, crop_of, fill, matmul, random_images, recipe
from benchmarks.registry import benchmark
from mmseg_custom.distributed.precision import apply_precision

FORMS = {'float32, channels first': (torch.float32, torch.contiguous_format),
         'float32, channels last': (torch.float32, torch.channels_last),
         'bfloat16, channels last': (torch.bfloat16, torch.channels_last)}
CPU_SHRUNK = 4  # UPerNet at its real size takes minutes a step there


@benchmark("UPerNet's forward and backward pass, by dtype and memory format", minutes=2.5, order=38)
def case(run: Context) -> None:
    """Measures the forms in turns, without cuDNN's search for kernels and then with it."""
    steps, flops = {}, 0.0
    for form, (dtype, memory_format) in FORMS.items():
        head, maps = _build(run, dtype, memory_format)
        steps[form] = _step(head, maps)
        flops = flops or _count(steps[form])
    product, of_product = matmul(run)
    for search in (False, True) if run.on_gpu else (False,):
        with torch.backends.cudnn.flags(enabled=True, benchmark=search, allow_tf32=True):
            times = run.measure({**steps, 'product': product}, seconds=1.5, rounds=3)
            words = ", with cuDNN's search" if search else ''
            _rows(run, times, flops / of_product, words)
            if run.on_gpu:
                _row_of_memory(run, steps, words)
    run.fact(tflop_of_a_step=flops / 1e12)


def _rows(run: Context, times: dict[str, list[float]], products: float, words: str) -> None:
    """Adds the time of a step, with that of so many matrix products as the limit."""
    first, *others = FORMS
    for form in others:
        targets = [at_least(first, 1.7)] if form.startswith('bf') and run.on_gpu else []
        run.row(f'step in {form}{words}', 'ms', times[form], {first: times[first]},
                [products * seconds for seconds in times['product']], targets,
                notes='the limit is the time of as many operations in matrix products in bfloat16')


def _row_of_memory(run: Context, steps: dict[str, Callable[[], None]], words: str) -> None:
    """Adds the memory that a step takes at most, beside weights, maps and their gradients."""
    *others, ours = FORMS
    memory = {form: run.peak_memory(step) for form, step in steps.items()}
    run.row(f'memory of a step{words}', 'GiB', memory[ours],
            {form: memory[form] for form in others})


def _build(run: Context, dtype: torch.dtype,
           memory_format: torch.memory_format) -> tuple[nn.Module, list[Tensor]]:
    """Returns the head on the device, and its feature maps in their form."""
    cfg = recipe('head_tuning', run)
    options = cfg.model.decode_head
    height, width = (side // 14 for side in crop_of(cfg))
    if not run.on_gpu and not run.tiny:
        options.update(channels=options.channels // CPU_SHRUNK,
                       in_channels=[options.in_channels[0] // CPU_SHRUNK] * 4)
        height, width = height // CPU_SHRUNK, width // CPU_SHRUNK
    with torch.device('meta'):
        head = revert_sync_batchnorm(build_head(options))
    model = nn.Module()
    model.backbone, model.decode_head = nn.Linear(1, 1), fill(head, run.device)
    apply_precision(model, None, run.device, head_dtype=dtype)
    if dtype == torch.float32:
        model.decode_head.to(memory_format=memory_format)
    maps = [random_images(run.device, IMAGES, channels, int(height * scale), int(width * scale))
            .to(dtype, memory_format=memory_format).requires_grad_()
            for channels, scale in zip(options.in_channels, (4, 2, 1, 0.5))]
    return model.decode_head.train(), maps


def _step(head: nn.Module, maps: list[Tensor]) -> Callable[[], None]:
    """Returns a function that computes logits, and the gradients of weights and maps."""
    def step() -> None:
        for tensor in (*maps, *head.parameters()):
            tensor.grad = None
        logits = head(maps)
        logits.backward(torch.ones_like(logits))
    return step


def _count(step: Callable[[], None]) -> float:
    """Returns the floating-point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())
