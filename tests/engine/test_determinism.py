"""What --deterministic does on a GPU, as far as that can be told without one.

The steps of the recipes run on fake CUDA tensors: no operation of theirs is one of those for which
PyTorch has no deterministic kernel on a GPU.
"""
import os
from collections.abc import Iterator

import pytest
import torch
from helpers.commands import ROOT
from helpers.logs import logged
from mmcv import Config
from mmcv.cnn.utils import revert_sync_batchnorm
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.engine.build import build_network
from mmseg_custom.engine.cli import explain
from mmseg_custom.engine.determinism import settle_determinism, use_deterministic_kernels

# Operations that raise, or sort and wait, by the docs of torch.use_deterministic_algorithms; those
# of the backward pass by the names of autograd's nodes.
FORWARD = {f'aten.{name}' for name in (
    'scatter_add_', 'scatter_add', 'scatter_', 'index_put_', 'index_add_', 'histc', 'cumsum',
    'put_', 'nll_loss2d_forward', 'median', 'kthvalue', 'grid_sampler_2d')}
BACKWARD = {f'{name}Backward0' for name in (
    'AdaptiveAvgPool2D', 'AdaptiveMaxPool2D', 'UpsampleLinear1D', 'UpsampleBilinear2D',
    'UpsampleBicubic2D', 'Index', 'UnsafeIndex', 'Gather', 'IndexSelect', 'NllLoss2D', 'Cumsum',
    'ReflectionPad2D', 'ReplicationPad2D', 'GridSampler2D', 'MaxPool3DWithIndices')}
RECIPES = ['linear_probing', 'head_tuning', 'few_shot', 'full_tuning']


@pytest.fixture(autouse=True)
def _same_modes(monkeypatch):
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':16:8')
    monkeypatch.setenv('NCCL_NVLS_ENABLE', '')
    monkeypatch.delenv('NCCL_NVLS_ENABLE')
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', True)
    monkeypatch.setattr(torch.backends.cudnn, 'deterministic', False)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


class Recorder(TorchDispatchMode):
    """Records the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func).rpartition('.')[0])
        return func(*args, **(kwargs or {}))


def nodes(loss: torch.Tensor) -> Iterator[str]:
    """The operations of a backward pass."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node.name()
        waiting += [following for following, _ in node.next_functions]


def network(recipe: str, **backbone: object) -> torch.nn.Module:
    cfg = Config.fromfile(str(ROOT / f'configs/tiny/{recipe}_tiny.py'))
    cfg.model.backbone.update(backbone)
    model = revert_sync_batchnorm(build_network(cfg, on_meta=True))
    apply_precision(model, torch.bfloat16, 'cuda')
    return model


@pytest.mark.parametrize('recipe, backbone', [
    *((recipe, {}) for recipe in RECIPES),
    ('few_shot', dict(img_size=56)),  # the position embedding is resampled
    ('few_shot', dict(adapt=dict(type='lora', use_dora=True, dropout=0.1))),
    ('few_shot', dict(train_last=1, train_norms=True)),
])
def test_a_step_has_no_operation_without_a_deterministic_kernel(recipe, backbone):
    model = network(recipe, **backbone)
    torch.use_deterministic_algorithms(True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device='cuda').train()
        images = torch.empty(2, 3, 112, 112, device='cuda')
        labels = torch.empty(2, 1, 112, 112, dtype=torch.long, device='cuda')
        with Recorder() as recorder:
            losses = model.forward_train(images, [{}] * 2, labels)
        loss = sum(value for name, value in losses.items() if 'loss' in name)
        backward = {*nodes(loss)}
    assert len(recorder.names) > 40 and len(backward) > 5
    assert not recorder.names & FORWARD and not backward & BACKWARD


def test_the_evaluation_runs_the_usual_kernels():
    """F.interpolate would gather the four neighbours of every pixel."""
    model = network('head_tuning')
    torch.use_deterministic_algorithms(True, warn_only=True)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), Recorder() as recorder:
        model.to_empty(device='cuda').eval()
        model._decode_head_forward_test(
            model.extract_feat(torch.empty(1, 3, 112, 112, device='cuda')), [{}])
    assert 'aten.upsample_bilinear2d' in recorder.names
    assert not any('index' in name for name in recorder.names)


def test_only_attention_that_is_differentiated_needs_the_strict_mode():
    for recipe, strict in zip(RECIPES, (False, False, True, True), strict=True):
        use_deterministic_kernels('cuda')
        with logged() as lines:
            settle_determinism(network(recipe))
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled() == (not strict)
        assert lines[-1].startswith('--deterministic: all kernels of a training step are')
    assert not torch.backends.cudnn.benchmark and torch.backends.cudnn.deterministic
    assert os.environ['NCCL_NVLS_ENABLE'] == '0'


def test_a_position_embedding_that_is_trained_differentiates_attention():
    use_deterministic_kernels('cuda')
    settle_determinism(network('head_tuning', unfreeze_pos_embed=True))
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_a_head_that_is_not_known_costs_nothing():
    cfg = Config.fromfile(str(ROOT / 'configs/tiny/few_shot_tiny.py'))
    cfg.model.decode_head = dict(type='PSPHead', in_channels=192, channels=8, num_classes=150)
    use_deterministic_kernels('cuda')
    with logged() as lines:
        settle_determinism(build_network(cfg, on_meta=True))
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic  # as far as the option went before
    assert lines[-1].startswith('--deterministic: with PSPHead a run is not known to be exact')
    settle_determinism(network('few_shot'))  # another head of a sweep
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_cpu_needs_nothing():
    use_deterministic_kernels('cpu')
    settle_determinism(network('few_shot'))
    assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.benchmark


def test_an_operation_without_a_kernel_is_one_line():
    use_deterministic_kernels('cuda')
    torch.use_deterministic_algorithms(True)
    with pytest.raises(RuntimeError) as raised:
        torch._prims_common.alert_not_deterministic('adaptive_avg_pool2d_backward_cuda')
    message = explain(raised.value)
    assert message.startswith('--deterministic: adaptive_avg_pool2d_backward_cuda has no ')
    assert message.endswith('train with --no-deterministic')
