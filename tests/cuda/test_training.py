"""Training on a simulated CUDA device: where the host waits, where tensors are, what they take."""
from collections import Counter

import pytest
from helpers.device_memory import DeviceMemory, Kinds, assert_as_predicted, predicted_for
from helpers.fake_cuda import local, on_cuda, simulate_ranks
from helpers.fake_runs import RECIPES, prepared, recipe, train
from mmcv.runner import Hook
from torch.nn import SyncBatchNorm

from mmseg_custom.distributed import mesh
from mmseg_custom.engine.ema import SegEMAHook

# All places of an iteration that may wait for the device: they read a line of the log.
LOG_LINE = {'mmseg_custom/engine/log_buffer.py:read_together (a copy to the host)',
            'mmseg_custom/distributed/collectives.py:gather_to_all (all_gather_object)',
            'mmseg_custom/engine/text_log.py:_get_max_memory (a number is read)'}


# Operators that reach the device in an iteration, without a line of the log, at seven blocks: those
# of one process and of one of 8. More launches than these are a decision, not an accident.
SLOW = [('linear probing', 8), ('few-shot', 1), ('few-shot', 8), ('head tuning', 8),
        ('full tuning', 1), ('full tuning', 8)]
LAUNCHES = {'linear probing': (276, 283), 'head tuning': (593, 709), 'few-shot': (1047, 855),
            'full tuning': (1379, 1245)}
LORA = dict(type='lora', r=16, blocks=[2, 5, 6])
PARTS = {'lora': dict(adapt=LORA), 'dora': dict(adapt=dict(LORA, use_dora=True, dropout=0.1)),
         'last blocks': dict(train_last=2), 'norms': dict(train_last=1, train_norms=True),
         'int8': dict(adapt=LORA, frozen_dtype='int8')}


class Iterations(Hook):
    """Collects what each iteration does; the first includes the start.

    Attributes:
        waits: Host waits by place.
        launches: Number of operators that reach the device.
        copies: Copies of batches to the device: whether from pinned memory, and whether on the
            stream that computes.
    """

    def __init__(self, seen):
        self.seen, self.waits, self.launches, self.copies = seen, [], [], []

    def after_train_iter(self, runner):
        self.waits.append(Counter(self.seen.host_waits))
        self.launches.append(self.seen.launches.total())
        self.copies.append(Counter(self.seen.copies))
        for found in (self.seen.host_waits, self.seen.launches, self.seen.copies):
            found.clear()


class BeforeBackward(Hook):
    """Collects the host waits of each iteration before its backward pass."""

    registered = 'VERY_HIGH'  # the optimizer's hook runs the backward pass

    def __init__(self, seen):
        self.seen, self.waits = seen, []

    def after_train_iter(self, runner):
        self.waits.append(list(self.seen.host_waits))


class Collectives(Hook):
    """Counts the collectives of each iteration."""

    def __init__(self, seen):
        self.seen, self.counts = seen, []

    def after_train_iter(self, runner):
        self.counts.append(Counter(self.seen.collectives))
        self.seen.collectives.clear()


def run_on_cuda(cuda, tmp_path, name, ranks=1, **settings):
    """Trains a recipe for three iterations; a line is logged after the second.

    Returns:
        (runner, what each iteration did, what was seen).
    """
    return train_on_cuda(cuda, prepared(recipe(name, **settings), tmp_path / 'run', ranks), ranks)


def train_on_cuda(cuda, run, ranks, memory=None):
    with on_cuda(memory) as seen, simulate_ranks(cuda, seen, ranks):
        iterations, before = Iterations(seen), BeforeBackward(seen)
        runner = train(run, seen, [iterations, before, *[Kinds(memory)] * (memory is not None)])
    assert not any(before.waits[1:])
    return runner, iterations, seen


def assert_on_cuda(runner):
    for name, tensor in runner.model.state_dict(keep_vars=True).items():
        assert local(tensor).is_cuda, name
    state = [value for values in runner.optimizer.state.values() for name, value in values.items()
             if name != 'step']  # a number of the host
    assert state and all(local(value).device.type == 'cuda' for value in state)


@pytest.mark.parametrize('name, ranks', [
    pytest.param(name, ranks, marks=pytest.mark.slow if (name, ranks) in SLOW else ())
    for name in RECIPES for ranks in (1, 8)])
def test_a_recipe_waits_for_a_line_of_the_log_and_takes_what_is_predicted(
        cuda, tmp_path, name, ranks):
    run = prepared(recipe(name), tmp_path / 'run', ranks)
    predicted, memory = predicted_for(run), DeviceMemory()
    runner, done, seen = train_on_cuda(cuda, run, ranks, memory)
    waits = done.waits
    print(f'{name}, {ranks} process(es): {sum(waits[2].values())} host waits in an iteration, '
          f'{sum(waits[1].values())} more for a line of the log; {done.launches[2]} launches')
    assert done.launches[2] <= LAUNCHES[name][ranks > 1]
    # Images and labels of the next iteration, on a stream of their own; nothing else is copied.
    assert done.copies[2] == {(True, False): 2}
    assert not waits[2]
    assert waits[1].keys() <= LOG_LINE and max(waits[1].values()) == 1
    assert_on_cuda(runner)
    assert bool(seen.collectives) == (ranks > 1)
    assert_as_predicted(memory, predicted)


@pytest.mark.parametrize('name, ranks', [
    ('head tuning', 1), ('head tuning', 8), ('full tuning', 8)])
@pytest.mark.slow
def test_heads_in_bfloat16_wait_for_nothing_and_take_what_is_predicted(
        cuda, tmp_path, name, ranks):
    run = prepared(recipe(name, head_precision='bf16'), tmp_path / 'run', ranks)
    predicted, memory = predicted_for(run), DeviceMemory()
    runner, done, _ = train_on_cuda(cuda, run, ranks, memory)
    assert not done.waits[2] and done.waits[1].keys() <= LOG_LINE
    assert_on_cuda(runner)
    assert_as_predicted(memory, predicted)
    in_float32 = predicted_for(prepared(recipe(name), tmp_path / 'float32', ranks))
    assert predicted.parts['head'] < in_float32.parts['head']
    assert any('convolutions in bfloat16' == str(kernel) for kernel in predicted.flops)


@pytest.mark.slow
@pytest.mark.parametrize('ranks', [pytest.param(1, marks=pytest.mark.slow), 8])
def test_accumulated_and_clipped_gradients_wait_for_nothing(cuda, tmp_path, ranks):
    _, done, _ = run_on_cuda(
        cuda, tmp_path, 'few-shot', ranks, total_batch=4 * ranks,
        optimizer_config=dict(grad_clip=dict(max_norm=1.0)), model__backbone__drop_path_rate=0.2)
    assert not done.waits[2] and done.waits[1].keys() <= LOG_LINE


@pytest.mark.slow
def test_averages_of_weights_wait_for_nothing(cuda, tmp_path):
    run = prepared(recipe('few-shot'), tmp_path / 'run', 8)
    with on_cuda() as seen, simulate_ranks(cuda, seen, 8):
        iterations, averages = Iterations(seen), SegEMAHook()
        train(run, seen, [averages, iterations])
    assert not iterations.waits[2] and iterations.waits[1].keys() <= LOG_LINE
    assert all(local(average).is_cuda for average in averages.averages.values())


@pytest.mark.parametrize('part, ranks, engine', [
    ('lora', 1, 'single'),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in [
        ('lora', 8, 'ddp'), ('lora', 8, 'fsdp2'), ('dora', 1, 'single'), ('dora', 8, 'fsdp2'),
        ('last blocks', 1, 'single'), ('last blocks', 8, 'ddp'), ('last blocks', 8, 'fsdp2'),
        ('norms', 8, 'ddp'), ('int8', 1, 'single'), ('int8', 8, 'ddp')])])
def test_adapters_and_last_blocks_wait_for_nothing(peft, cuda, tmp_path, part, ranks, engine):
    settings = {f'model__backbone__{name}': value for name, value in PARTS[part].items()}
    runner, done, seen = run_on_cuda(cuda, tmp_path, 'few-shot', ranks, engine__type=engine,
                                     **settings)
    assert not done.waits[2] and done.waits[1].keys() <= LOG_LINE
    assert_on_cuda(runner)
    assert bool(seen.collectives) == (ranks > 1)
    assert all(p.grad is None for p in runner.model.parameters() if not p.requires_grad)


@pytest.mark.slow
def test_nor_does_the_segmentor_of_mmseg(cuda, tmp_path):
    _, done, _ = run_on_cuda(cuda, tmp_path, 'few-shot', 8, model__type='EncoderDecoder')
    assert not done.waits[2] and done.waits[1].keys() <= LOG_LINE


def test_class_weights_wait_for_nothing(cuda, tmp_path):
    _, done, _ = run_on_cuda(cuda, tmp_path, 'linear probing', blocks=2,
                              model__decode_head__loss_decode__class_weight=[1., 2.] * 75)
    assert not done.waits[2]


@pytest.mark.parametrize('name', [
    'linear probing', pytest.param('full tuning', marks=pytest.mark.slow)])
def test_32_processes_of_4_hosts(cuda, tmp_path, name):
    cuda.setattr(mesh, 'gather_to_all', lambda _: [f'host {i // 8}' for i in range(32)])
    runner, done, _ = run_on_cuda(cuda, tmp_path, name, 32, engine__hybrid=True)
    assert not done.waits[2]
    if name == 'full tuning':
        assert tuple(next(runner.model.parameters()).device_mesh.shape) == (4, 8)


@pytest.mark.slow
def test_hosts_sum_the_gradients_of_a_step_once(cuda, tmp_path):
    """With two batches a step, each is reduced within its host, and their sum over the hosts."""
    cuda.setattr(mesh, 'gather_to_all', lambda _: [f'host {i // 8}' for i in range(16)])
    counts = []
    for batches in (1, 2):
        run = prepared(recipe('few-shot', engine__hybrid=True, total_batch=32 * batches),
                       tmp_path / str(batches), 16)
        assert run.batch.accumulation == batches
        with on_cuda() as seen, simulate_ranks(cuda, seen, 16):
            collectives = Collectives(seen)
            runner = train(run, seen, [collectives])
        counts.append(collectives.counts[2])
    norms = sum(isinstance(module, SyncBatchNorm) for module in runner.model.modules())
    one, two = counts
    assert one['c10d.allreduce_.default'] > norms
    assert two['c10d.allreduce_.default'] - one['c10d.allreduce_.default'] == norms
    scatters = 'c10d._reduce_scatter_base_.default'
    assert two[scatters] == 2 * one[scatters] > 0
