"""The rate of a matrix product of the MLP's shape, by dtype: the reference of all others."""
import torch

from benchmarks.context import Context
from benchmarks.networks import matmul
from benchmarks.registry import benchmark


@benchmark("Matrix products of the MLP's shape, by dtype", minutes=0.7, order=5)
def case(run: Context) -> None:
    """Measures the products in turns."""
    dtypes = dict(bfloat16=torch.bfloat16, float16=torch.float16, float32=torch.float32)
    work = {name: matmul(run, dtype) for name, dtype in dtypes.items()}
    times = run.measure({name: product for name, (product, _) in work.items()}, seconds=2)
    for name, (_, flops) in work.items():
        references = {} if name == 'float32' else {
            'float32': [flops / seconds for seconds in times['float32']]}
        run.row(f'product in {name}', 'TFLOP/s', [flops / seconds for seconds in times[name]],
                references, higher_is_better=True)
