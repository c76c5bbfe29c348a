"""Does what the pages on adding a backbone, a head and a data set say, in a folder of its own."""
import sys

import pytest
import torch
from helpers.checkout import make_checkout, run_command
from helpers.data import draw_data
from helpers.docs import commands_in
from mmseg.datasets.builder import DATASETS
from mmseg.models.builder import MODELS

from mmseg_custom.doctor.data import check_data
from mmseg_custom.engine.config import load_config

SHORT = ('runner.max_iters=2', 'checkpoint_config.interval=2', 'evaluation.interval=2',
         'log_config.interval=1')


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A clone with few images of demo data, where modules in ``plugins`` can be imported."""
    make_checkout(tmp_path)
    draw_data(tmp_path / 'data/ade_demo', train=4, val=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend('plugins')
    before = set(sys.modules), {id(r): dict(r.module_dict) for r in (DATASETS, MODELS)}
    yield
    for name in set(sys.modules) - before[0]:
        if str(getattr(sys.modules[name], '__file__', '')).startswith('plugins'):
            del sys.modules[name]
    for registry in (DATASETS, MODELS):
        for name in set(registry.module_dict) - set(before[1][id(registry)]):
            registry.module_dict.pop(name)


@pytest.mark.parametrize('page, name, part', [
    ('adding_backbones', 'timm_vit', 'backbone.blocks.5.attn.qkv.weight'),
    ('adding_heads', 'mlp_head', 'decode_head.layers.3.weight'),
    ('adding_data_sets', 'aerial', 'decode_head.conv_seg.weight')])
def test_the_example_is_trained(page, name, part, plugins, run_tool):
    for command in commands_in(f'docs/{page}.md'):
        if command.needs or 'make_demo_data' in command.text:
            continue  # the images are drawn already
        if 'doctor.py' in command.text:  # without its prediction of memory and time
            findings, _ = check_data(load_config(f'configs/own/{name}.py'))
            assert not findings
        else:
            run_command(command.text, run_tool, SHORT)
    saved = torch.load(f'work_dirs/{name}/iter_2.pth', weights_only=True)
    assert part in saved['state_dict']
    assert len(saved['meta']['CLASSES']) == (2 if name == 'aerial' else 150)
