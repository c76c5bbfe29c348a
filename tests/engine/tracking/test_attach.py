"""What trackers are told of a run, and who decides on the number of pictures."""
from dataclasses import replace

import pytest
from helpers.data import prepare, write_config
from helpers.logs import logged
from helpers.tracked import a_runner

from mmseg_custom.engine.evaluation_hook import SegEvalHook
from mmseg_custom.engine.tracking import MMSegWandbTracker, TensorboardTracker
from mmseg_custom.engine.tracking.attach import attach_trackers, describe


def test_a_run_is_described_by_its_config_seed_versions_and_sweep(shared_data, tmp_path):
    run = prepare(write_config(tmp_path / 'config.py', shared_data), seed=7,
                  work_dir=str(tmp_path / 'sweep/lr0.01'))
    found = describe(replace(run, sweep=str(tmp_path / 'sweep')), 'seed = 7')
    assert (found.name, found.sweep) == ('lr0.01', 'sweep')
    assert found.config['seed'] == 7 and found.config['model']['backbone']['type'] == 'InternViT6B'
    assert found.text == 'seed = 7' and found.settings['seed'] == '7'
    assert found.facts['Kind'].startswith('linear probing') and 'PyTorch' in found.facts
    assert describe(run, '').sweep is None


@pytest.mark.parametrize('trackers, asked, shown', [
    ([TensorboardTracker()], 8, 8), ([TensorboardTracker()], None, 0), ([], 8, 0),
    ([MMSegWandbTracker(num_eval_images=5)], None, 5), ([MMSegWandbTracker()], 8, 8)])
def test_pictures_are_drawn_for_trackers(tmp_path, trackers, asked, shown):
    runner, evaluation = a_runner(tmp_path), SegEvalHook.__new__(SegEvalHook)
    runner.rank, evaluation.show_images = 1, asked
    runner.hooks = [*trackers, evaluation]
    with logged() as lines:
        attach_trackers(runner, None)
    assert evaluation.show_images == shown
    assert [line[:43] for line in lines] == ([] if trackers else [
        'evaluation.show_images=8 has no effect: no '])
