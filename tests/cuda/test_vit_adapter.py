"""A training of ViT-Adapter on a simulated CUDA device: real width, two blocks."""
import pytest
from cuda.test_training import LOG_LINE, BeforeBackward, Iterations
from helpers.commands import ROOT
from helpers.device_memory import DeviceMemory, Kinds, predicted_for
from helpers.fake_cuda import local, on_cuda, simulate_ranks
from helpers.fake_runs import prepared, train

from mmseg_custom.doctor.memory import CUBLAS
from mmseg_custom.engine.config import load_config

RECIPE = 'vit_adapter/upernet_intern_vit_adapter_6b_512_80k_ade20k_bs16_lr4e-5.py'
LAUNCHES = 2080, 2331  # of one process, and of one of 8


@pytest.mark.slow
@pytest.mark.parametrize('ranks', [1, 8])
def test_it_waits_for_a_line_of_the_log_and_takes_what_is_predicted(cuda, tmp_path, ranks):
    cfg = load_config(str(ROOT / 'configs/intern_vit_6b' / RECIPE), {
        'runner.max_iters': 3, 'log_config.interval': 2, 'model.backbone.depth': 2,
        'model.backbone.interaction_indexes': [[0, 0], [1, 1]]})
    run = prepared(cfg, tmp_path / 'run', ranks)
    predicted, memory = predicted_for(run), DeviceMemory()
    with on_cuda(memory) as seen, simulate_ranks(cuda, seen, ranks):
        done, before = Iterations(seen), BeforeBackward(seen)
        runner = train(run, seen, [done, before, Kinds(memory)])
    assert not any(before.waits[1:]) and not done.waits[2]
    assert done.waits[1].keys() <= LOG_LINE
    assert done.copies[2] == {(True, False): 2}  # images and labels of the next iteration
    assert all(local(tensor).is_cuda for tensor in runner.model.state_dict().values())
    assert bool(seen.collectives) == (ranks > 1)
    found = sum(memory.peak().values()) + CUBLAS
    print(f'{done.launches[2]} launches; {found} bytes, predicted {predicted.peak}')
    assert done.launches[2] <= LAUNCHES[ranks > 1]
    assert abs(found / predicted.peak - 1) < 0.01
