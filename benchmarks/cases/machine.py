"""The rates that all others are held against: products of the MLP's shape, by dtype, and a copy."""
import torch

from benchmarks.context import Context
from benchmarks.machine import ask_driver
from benchmarks.networks import matmul
from benchmarks.registry import benchmark

DTYPES = dict(bfloat16=torch.bfloat16, float16=torch.float16, float32=torch.float32)
CLOCKS = ('clocks.sm', 'clocks.mem', 'power.draw', 'temperature.gpu')


@benchmark("Rates of the machine: products of the MLP's shape, by dtype, and a copy", minutes=1.5,
           order=5)
def case(run: Context) -> None:
    """Measures the products in turns, then the copy."""
    if run.on_gpu:
        run.fact(before=ask_driver(*CLOCKS))
    # On the CPU nothing computes in float16, and one crop is enough.
    work = {name: matmul(run, dtype, 2594 if run.on_gpu else 1297)
            for name, dtype in DTYPES.items() if run.on_gpu or name != 'float16'}
    times = run.measure({name: product for name, (product, _) in work.items()},
                        seconds=1 if run.on_gpu else 4)
    unit = 'TFLOP/s' if run.on_gpu else 'GFLOP/s'
    for name, (_, flops) in work.items():
        rates = {each: [flops / seconds for seconds in times[each]] for each in times}
        run.row(f'product in {name}', unit, rates[name],
                {} if name == 'float32' else {'float32': rates['float32']}, higher_is_better=True)
    if run.on_gpu:
        run.fact(after=ask_driver(*CLOCKS))
    source = torch.randn(1 << (20 if run.tiny else 29 if run.on_gpu else 26), device=run.device)
    target = torch.empty_like(source)
    copies = run.measure({'copy': lambda: target.copy_(source)}, seconds=1)
    run.row('copy on the device, read and written', 'GB/s',
            [2 * source.nbytes / seconds for seconds in copies['copy']], higher_is_better=True)
