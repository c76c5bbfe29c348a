"""Options of ``data`` reach the loaders that they mean something to."""
from dataclasses import replace

import pytest
from helpers.data import SMALL_LINEAR, prepare, write_config

from mmseg_custom.engine.loaders import build_test_loader, build_train_loader
from mmseg_custom.engine.randomness import SeededSamples

OPTIONS = SMALL_LINEAR + """
data.update(workers_per_gpu={}, persistent_workers=True, prefetch_factor=4, pin_memory={})
"""


@pytest.fixture
def loaders(shared_data, tmp_path):
    def build(workers, pin_memory):
        extra = OPTIONS.format(workers, pin_memory)
        run = prepare(write_config(tmp_path / 'config.py', shared_data, extra=extra), seed=0)
        run = replace(run, options=replace(run.options, device='cuda'))
        return (build_train_loader(run, SeededSamples(run.data['train'], 0)),
                build_test_loader(run, 'val'))
    return build


def test_options_of_workers_mean_nothing_without_workers(loaders):
    """PyTorch refuses them, and 0 workers are what is advised where workers die."""
    for loader in loaders(0, True):
        assert loader.num_workers == 0 and not loader.persistent_workers
    for loader in loaders(1, True):
        assert loader.prefetch_factor == 4 and loader.persistent_workers


def test_memory_is_pinned_unless_it_must_not(loaders):
    assert [loader.pin_memory for loader in loaders(0, True)] == [True, True]
    assert [loader.pin_memory for loader in loaders(0, False)] == [False, False]


def test_every_image_is_tested(shared_data, tmp_path):
    """With ``drop_last`` for the training, too; mmseg leaves out the last images then."""
    run = prepare(write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR + """
data.update(drop_last=True, val_dataloader=dict(samples_per_gpu=2))
"""))
    assert len(build_test_loader(run, 'val')) == 2 and len(run.data['val']) == 3
