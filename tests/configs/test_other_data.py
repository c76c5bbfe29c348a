"""Recipes on other data sets: they are ADE20K's but for the data, and every config builds."""
import re

import pytest
import torch
from helpers.commands import ROOT
from mmcv import Config
from mmseg.datasets import build_dataset
from mmseg.datasets.builder import DATASETS
from mmseg.models import build_segmentor

from mmseg_custom.datasets.prepare import LAYOUTS
from mmseg_custom.errors import InputError

CONFIGS = ROOT / 'configs'
KINDS = ('linear_probing', 'head_tuning', 'full_tuning')  # others: test_in_part.py
SIZES = ('intern_vit_6b', 'intern_vit_300m')  # other releases: test_releases.py
OTHER = sorted(path for size in SIZES for path in CONFIGS.glob(f'{size}/*/*.py')
               if not re.search('ade20k|cocostuff', path.name) and path.parent.name in KINDS)
# Part of a name -> data set, its classes, thousands of iterations, layout of prepare_data.py
SETS = {
    'cityscapes': ('CityscapesDataset', 19, 80, 'cityscapes'),
    'coco_stuff164k': ('COCOStuffDataset', 171, 80, 'coco_stuff164k'),
    'pascal_context59': ('PascalContextDataset59', 59, 40, 'pascal_context59'),
    'voc2012aug': ('PascalVOCDataset', 21, 40, 'voc2012'),
}


def set_of(path) -> str:
    return next(name for name in SETS if f'k_{name}_bs16' in path.name)


def test_there_is_one_for_each_data_set_size_and_kind():
    assert len(OTHER) == 4 * 2 * 3
    assert {(path.parents[1].name, path.parent.name, set_of(path)) for path in OTHER} == {
        (size, kind, name) for size in SIZES for kind in KINDS for name in SETS}


@pytest.mark.parametrize('path', OTHER, ids=lambda path: path.stem)
def test_recipe(path):
    data_set, classes, thousands, _ = SETS[set_of(path)]
    cfg = Config.fromfile(path)
    name = path.name.replace(f'{thousands}k_{set_of(path)}', '80k_ade20k')
    ade20k = Config.fromfile(path.with_name(name))
    assert cfg.runner.max_iters == thousands * 1000
    for section in ('optimizer', 'optimizer_config', 'lr_config', 'checkpoint_config',
                    'evaluation', 'custom_hooks', 'custom_imports', 'log_config'):
        assert cfg[section] == ade20k[section], section
    assert cfg.data.samples_per_gpu == ade20k.data.samples_per_gpu
    assert {cfg.data[split].type for split in ('train', 'val', 'test')} == {data_set}
    assert len(DATASETS.get(data_set).CLASSES) == classes
    for head in ('decode_head', 'auxiliary_head'):
        if head in ade20k.model:
            assert cfg.model[head].num_classes == classes
            ade20k.model[head].num_classes = classes
    assert cfg.model == ade20k.model
    cfg.model.backbone.pretrained = None
    with torch.device('meta'):
        build_segmentor(cfg.model)


@pytest.mark.parametrize('name', SETS)
def test_paths_are_those_that_prepare_data_fills(name):
    path = next(path for path in OTHER if set_of(path) == name)
    layout = LAYOUTS[SETS[name][3]]
    cfg = Config.fromfile(path)
    parts = {part.name: part for part in layout.splits}
    for split in ('train', 'val'):
        data = cfg.data[split]
        assert data.data_root == f'{layout.out}/{layout.root}'.removesuffix('/.')
        listed, labels = data.get('split', ''), data.ann_dir
        listed = listed if isinstance(listed, list) else [listed]
        labels = labels if isinstance(labels, list) else [labels]
        names = ['train', 'aug'] if len(listed) == 2 else [p for p in parts if split in p]
        assert [(parts[n].images, parts[n].labels, parts[n].listed) for n in names] == [
            (data.img_dir, *pair) for pair in zip(labels, listed)]
    reduced = cfg.data.train.pipeline[1].get('reduce_zero_label', False)
    assert layout.last_label == SETS[name][1] - (not reduced)
    with pytest.raises(InputError, match=f'nowhere/{data.img_dir} does not exist.*: prepare'):
        build_dataset(dict(cfg.data.val, data_root='nowhere'))


def test_every_config_is_looked_at_by_a_test():
    found = {path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts}
    known = {path for pattern in ('intern_vit_*/*/*ade20k*.py', 'intern_vit_*/lora/*.py',
                                  'intern_vit_*/last_blocks/*.py', 'tiny/*.py', 'frozen_vit/*/*.py',
                                  'intern_vit_*/*/*cocostuff164k*.py')
             for path in CONFIGS.glob(pattern)} | set(OTHER)
    assert found == known
