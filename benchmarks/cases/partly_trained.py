"""Training steps of LoRA and of the last blocks of InternViT-6B, one crop of 504x504, linear head.

Peak memory on a GPU is compared with the doctor's prediction, and with what each is to stay below.
The limit of the time is that of all products that a step needs at the rate of a product of the
MLP's shape; recomputed blocks are not among them. On the CPU the network has two blocks.
"""
import statistics
from importlib.util import find_spec

from benchmarks.context import Context
from benchmarks.networks import matmul
from benchmarks.registry import benchmark
from benchmarks.steps import DOCTOR, row_of_memory, take_first_steps
from benchmarks.training import config_of, needed_flops, predict, training
from mmseg_custom.doctor.timing import measure_rates, seconds_of
from mmseg_custom.engine.tuning import num_read
from mmseg_custom.units import GIB

LAST = 4
LORA = {'model.backbone.adapt': dict(type='lora', r=16)}
FORMS = {  # name -> (GiB that a step is to stay below, settings)
    'LoRA r=16, int8 base': (22, {**LORA, 'model.backbone.frozen_dtype': 'int8'}),
    'LoRA r=16, bf16 base': (32, LORA),
    'last 4 blocks': (32, {'model.backbone.freeze_vit': False, 'model.backbone.train_last': LAST}),
}


@benchmark('Steps of LoRA and of the last blocks, linear head, one crop of 504x504', minutes=4,
           suite=('cuda',), order=16)
def case(run: Context) -> None:
    """Measures the steps of each form, whose memory is then free."""
    for name, (most, settings) in FORMS.items():
        if settings.keys() >= LORA.keys() and find_spec('peft') is None:
            run.missing(f'{name}: step', 'peft is not installed')
            continue
        cfg = config_of('linear_probing', run, **settings)
        if 'train_last' in cfg.model.backbone:
            cfg.model.backbone.train_last = min(LAST, num_read(cfg.model.backbone))
        predicted, _ = predict(cfg, run, images=1)
        with training(cfg, run, predicted, images=1) as trained:
            take_first_steps(run, trained)
            if run.on_gpu:
                row_of_memory(run, trained, f'{name}: peak memory of a step', most * GIB)
            product, flops = matmul(run, tokens=1297)
            times = run.measure({'ours': trained.step, 'product': product},
                                rounds=5 if run.on_gpu else 3)
            rate = flops / statistics.median(times['product'])
            rates, bandwidth = measure_rates(run.device, predicted.calls.values(), False, False)
            run.row(f'{name}: step', 'ms', times['ours'],
                    {DOCTOR: seconds_of(predicted, rates, bandwidth)},
                    limit=needed_flops(cfg, run, images=1) / rate)
            run.profile(f'{name}: step', trained.step)
