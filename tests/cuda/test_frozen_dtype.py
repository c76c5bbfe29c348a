"""Linear probing on weights of 8 bits on a simulated CUDA device, which multiplies 8 bits."""
import pytest
from helpers.device_memory import DeviceMemory, Kinds, assert_as_predicted, predicted_for
from helpers.fake_cuda import on_cuda
from helpers.fake_runs import prepared, recipe, train
from mmcv.runner import Hook

from mmseg_custom.distributed.parallelize import unwrap
from mmseg_custom.layers.quantized_linear import STORED, quantized_layers

PRODUCTS = {'int8': 'aten._int_mm.default', 'fp8': 'aten._scaled_mm.default'}


class Steps(Hook):
    """Counts host waits and products of 8 bits up to the end of each iteration."""

    def __init__(self, seen, product):
        self.seen, self.product, self.counts = seen, product, []

    def after_train_iter(self, runner):
        self.counts.append((len(self.seen.host_waits), self.seen.launches[self.product]))


@pytest.mark.parametrize('kind', ['int8', pytest.param('fp8', marks=pytest.mark.slow)])
def test_blocks_multiply_8_bits_and_the_host_waits_for_nothing(cuda, tmp_path, kind):
    cfg = recipe('linear probing', blocks=2, log_config__interval=10,
                 model__backbone__frozen_dtype=kind)
    run = prepared(cfg, tmp_path / 'run')
    predicted, memory = predicted_for(run), DeviceMemory()
    with on_cuda(memory) as seen:
        steps = Steps(seen, PRODUCTS[kind])
        runner = train(run, seen, [steps, Kinds(memory)])
    layers = quantized_layers(unwrap(runner.model))
    assert all(layer.weight.device.type == 'cuda' and layer.weight.dtype == STORED[kind]
               for layer in layers)
    (waits, products), (waits_before, products_before) = steps.counts[2], steps.counts[1]
    assert waits == waits_before
    assert products - products_before == 4 * (max(cfg.model.backbone.out_indices) + 1)
    assert_as_predicted(memory, predicted)


@pytest.mark.slow
@pytest.mark.parametrize('kind', PRODUCTS)
@pytest.mark.parametrize('trained, products', [
    (dict(adapt=dict(type='lora')), 2 * 8), (dict(train_last=1), 4)], ids=['lora', 'last_blocks'])
def test_what_is_trained_over_8_bits_waits_for_nothing(peft, cuda, tmp_path, kind, trained,
                                                       products):
    """Blocks with adapters are recomputed; the backward pass multiplies in bfloat16."""
    cfg = recipe('linear probing', blocks=2, log_config__interval=10, **{
        f'model__backbone__{name}': value
        for name, value in dict(freeze_vit=False, frozen_dtype=kind, **trained).items()})
    run = prepared(cfg, tmp_path / 'run')
    with on_cuda(DeviceMemory()) as seen:
        steps = Steps(seen, PRODUCTS[kind])
        train(run, seen, [steps])
    (waits, found), (waits_before, found_before) = steps.counts[2], steps.counts[1]
    assert waits == waits_before
    assert found - found_before == products
