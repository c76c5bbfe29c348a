"""The loss of validation images: of the right weights and images, without effect on training."""
import json
from pathlib import Path

import pytest
import torch
from helpers.data import SMALL_LINEAR, prepare, write_config
from helpers.runs import losses

from mmseg_custom.engine.loaders import build_endless_loader
from mmseg_custom.engine.randomness import SeededSamples
from mmseg_custom.engine.test import load_model

PLAIN = SMALL_LINEAR + """
log_config = dict(interval=2)
data['train']['max_image_num'] = 4
"""
WORKFLOW = PLAIN + "workflow = [('train', 2), ('val', 2)]\n"


def validations(folder: Path) -> dict[int, float]:
    lines = map(json.loads, next(folder.glob('*.log.json')).read_text().splitlines())
    return {line['iter']: line['loss_val'] for line in lines if 'loss_val' in line}


def test_of_the_weights_and_images_of_its_iteration(zygote, shared_data, tmp_path):
    config = write_config(tmp_path / 'config.py', shared_data, extra=WORKFLOW)
    plain = write_config(tmp_path / 'plain.py', shared_data, extra=PLAIN)
    text = zygote.train(config, '--work-dir', tmp_path / 'run', '--seed', 0)
    zygote.train(plain, '--work-dir', tmp_path / 'plain', '--seed', 0)
    assert losses(tmp_path / 'run') == losses(tmp_path / 'plain') != {}
    found = validations(tmp_path / 'run')
    assert list(found) == [2, 4] and 'Iter(val) [4]\tdecode.loss_ce_val: ' in text
    zygote.train(config, '--work-dir', tmp_path / 'resumed', '--resume-from',
                 tmp_path / 'run/iter_2.pth')
    assert validations(tmp_path / 'resumed') == {4: found[4]}

    run = prepare(config, seed=0, load_from=str(tmp_path / 'run/iter_4.pth'))
    assert len(run.data['val_loss']) == 3 and run.data['val_loss'][0]['img'].data.shape[1:] == (
        56, 56)
    model = load_model(run.cfg, run.checkpoint, 'cpu', 150).eval()
    loader = iter(build_endless_loader(run, SeededSamples(run.data['val_loss'], 0), done=2))
    expected = []
    for batch in (next(loader), next(loader)):
        with torch.no_grad():
            expected.append(model.forward_train(
                batch['img'].data[0], batch['img_metas'].data[0],
                gt_semantic_seg=batch['gt_semantic_seg'].data[0])['decode.loss_ce'].item())
    assert found[4] == pytest.approx(sum(expected) / 2, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('recipe, engine', [
    ('linear_probing_tiny', 'ddp'), ('few_shot_tiny', 'fsdp2')])
def test_of_several_processes(zygote, shared_data, tmp_path, recipe, engine):
    config = write_config(tmp_path / 'config.py', shared_data, recipe, WORKFLOW)
    for ranks in (1, 2):
        zygote.train(config, '--work-dir', tmp_path / str(ranks), '--seed', 0, '--no-validate',
                     '--engine', engine if ranks > 1 else 'single', '--cfg-options',
                     f'data.samples_per_gpu={2 // ranks}', 'lr_config.warmup_ratio=1.0',
                     'optimizer.lr=1e-30', ranks=ranks)
    assert validations(tmp_path / '2') == pytest.approx(validations(tmp_path / '1'), abs=5e-3)
