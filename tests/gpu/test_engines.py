"""DDP and FSDP2 on a GPU: one rank over nccl, and two ranks on one card over gloo."""
import re
from pathlib import Path

import pytest
import torch
from helpers.runs import (
    ITERATIONS,
    PARTLY,
    final_state,
    losses,
    skip_without_peft,
    write_small_config,
)

pytestmark = pytest.mark.gpu

# What torch and gloo say of a collective that they cannot do on a GPU.
REFUSED = re.compile(r'.*(not support|unsupported|No backend type|not implemented|'
                     r'Backend gloo does not).*', re.IGNORECASE)
EXACT = ['--seed', 5, '--no-validate', '--total-batch', 4]
# In float32, and without what each rank draws for itself.
SETTINGS = ['--cfg-options', 'precision=fp32', 'model.backbone.drop_path_rate=0.0',
            'model.decode_head.dropout_ratio=0.0', 'model.auxiliary_head.dropout_ratio=0.0']


@pytest.fixture(scope='module')
def single(zygote, device, small_config, tmp_path_factory) -> Path:
    """The run in one process without a group."""
    work_dir = tmp_path_factory.mktemp('engines') / 'single'
    zygote.train(small_config, '--work-dir', work_dir, '--device', device, *EXACT, *SETTINGS)
    return work_dir


def assert_same_training(work_dir: Path, expected: Path, part: str = '') -> None:
    """Compares losses and trained weights up to the order of sums, and up to TF32.

    Args:
        work_dir: Work dir of the run.
        expected: That of the run it is compared with.
        part: Regular expression for the names of weights that are compared.
    """
    found, logged = losses(work_dir), losses(expected)
    assert [found[i]['loss'] for i in range(1, ITERATIONS + 1)] == pytest.approx(
        [logged[i]['loss'] for i in range(1, ITERATIONS + 1)], rel=5e-3)
    end, expected_end = trained(work_dir, part), trained(expected, part)
    assert end.keys() == expected_end.keys() and len(end) > (10 if part else 50)
    difference = sum((end[name] - value).square().sum() for name, value in expected_end.items())
    norm = sum(value.square().sum() for value in expected_end.values())
    assert (difference / norm).sqrt() < 2e-2


def trained(work_dir: Path, part: str) -> dict[str, torch.Tensor]:
    """Weights after the last iteration, of names that hold a part."""
    state = {name.removeprefix('state_dict.'): value  # of a sharded checkpoint
             for name, value in final_state(work_dir).items()}
    weights = re.compile(r'(backbone|decode_head|auxiliary_head)\..*(weight|bias|gamma)')
    return {name: value for name, value in state.items()
            if re.search(part, name) and weights.fullmatch(name)}


@pytest.mark.parametrize('engine', ['ddp', 'fsdp2'])
def test_one_rank(zygote, device, small_config, single, tmp_path, engine):
    text = zygote.train(small_config, '--work-dir', tmp_path, '--device', device, *EXACT,
                        '--launcher', 'pytorch', '--engine', engine, *SETTINGS)
    assert f'engine: {engine} (asked for), 1 process(es)' in text
    assert_same_training(tmp_path, single)


@pytest.mark.parametrize('kind, part', [
    ('lora', 'lora_'), ('dora', 'lora_'), ('last_blocks', r'blocks\.[23]\.')])
def test_one_rank_of_a_part(zygote, device, tmp_path, kind, part):
    """Adapters and last blocks, which are replicated or sharded beside frozen weights."""
    skip_without_peft(kind)
    config = write_small_config(tmp_path, PARTLY[kind].replace(', dropout=0.3', ''))
    for engine in ('single', 'ddp', 'fsdp2'):
        group = ['--launcher', 'pytorch', '--engine', engine] if engine != 'single' else []
        zygote.train(config, '--work-dir', tmp_path / engine, '--device', device, *EXACT, *group,
                     *SETTINGS)
    for engine in ('ddp', 'fsdp2'):
        assert_same_training(tmp_path / engine, tmp_path / 'single', part)


@pytest.mark.parametrize('engine', ['ddp', 'fsdp2'])
def test_two_ranks_on_one_card(zygote, device, small_config, single, tmp_path, engine):
    log = tmp_path / 'log.txt'
    processes = zygote.start(
        log, 'tools/train.py', small_config, '--work-dir', tmp_path / 'run', '--device', device,
        *EXACT, '--launcher', 'slurm', '--engine', engine, *SETTINGS, 'dist_params.backend=gloo',
        ranks=2, limit=90)
    codes, text = [zygote.wait(process) for process in processes], log.read_text()
    if codes != [0, 0] and device == 'cuda' and (refused := REFUSED.search(text)):
        pytest.skip(f'{engine} over gloo on CUDA tensors: {refused.group().strip()[:200]}')
    assert codes == [0, 0], text[-5000:]
    assert f'engine: {engine} (asked for), 2 process(es)' in text
    assert_same_training(tmp_path / 'run', single)
