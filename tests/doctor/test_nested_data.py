"""Crop and classes of every recipe, and the doctor on data sets that repeat or join others."""
import pytest
from helpers.commands import ROOT
from helpers.data import draw_data, write_config

from mmseg_custom.doctor.checks import check_network, run_checks, training_classes
from mmseg_custom.doctor.run_shape import crop_of
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.options import RunOptions

RECIPES = sorted((ROOT / 'configs').glob('[!_]*/**/*.py'))
FOLDERS = dict(img_dir='images/training', ann_dir='annotations/training')
NESTED = {
    'RepeatDataset': lambda train: dict(type='RepeatDataset', times=3, dataset=train),
    'list': lambda train: [train, dict(type='RepeatDataset', times=2, dataset=[train])],
    'ConcatDataset': lambda train: {**train, **{key: [folder] * 2
                                                for key, folder in FOLDERS.items()}},
}


def test_crop_and_classes_of_every_recipe():
    assert len(RECIPES) > 40
    for path in RECIPES:
        cfg = load_config(str(path))
        classes, = training_classes(cfg)
        assert crop_of(cfg) == tuple(cfg.crop_size), path
        assert len(classes) == cfg.model.decode_head.num_classes, path


@pytest.fixture(scope='module')
def config_path(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp('nested')
    return str(write_config(folder / 'config.py', draw_data(folder, train=4, val=2)))


@pytest.mark.parametrize('kind', NESTED)
def test_nested_data_sets_are_checked(kind, config_path, tmp_path):
    cfg = load_config(config_path, dict(work_dir=str(tmp_path)))
    cfg.model.backbone.update(embed_dim=32, depth=2, num_heads=2, out_indices=[1], pretrained=None)
    cfg.model.decode_head.update(in_channels=32, channels=32)
    cfg.data.train = NESTED[kind](dict(cfg.data.train))
    report = run_checks(cfg, RunOptions(), 1, None)
    assert report.healthy, [finding.line() for finding in report.findings]
    assert report.data['train']['images'] and report.shape.crop == tuple(cfg.crop_size)
    cfg.model.decode_head.num_classes = 149
    assert 'the head has 149 classes, the data 150' in check_network(cfg)[0].message
