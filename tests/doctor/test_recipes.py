"""Every recipe takes a training step on fake tensors of a CUDA device."""
import pytest
from helpers.commands import ROOT

from mmseg_custom.distributed.options import Engine
from mmseg_custom.doctor.depth import with_depth
from mmseg_custom.doctor.fake_step import trace_step
from mmseg_custom.doctor.run_shape import RunShape
from mmseg_custom.engine.config import crop_of, load_config
from mmseg_custom.engine.tuning import num_deferred

CONFIGS = ROOT / 'configs'
RECIPES = sorted(path.relative_to(CONFIGS).as_posix()
                 for path in CONFIGS.glob('intern_vit_*/*/*.py'))
QUICK = [name for name in RECIPES if name.startswith('intern_vit_6b_448px_v1_0/')
         and 'frozen' in name and ('upernet' in name) == ('cocostuff' in name)]


@pytest.mark.parametrize('name', [
    pytest.param(name, id=name.split('/')[-1], marks=() if name in QUICK else pytest.mark.slow)
    for name in RECIPES])
def test_it_takes_a_step(name):
    """With as many blocks as are read, and without a file."""
    cfg = load_config(str(CONFIGS / name))
    cfg.model.backbone.pretrained = None
    cfg = shallow(cfg)
    shape = RunShape('cuda', 1, cfg.data.samples_per_gpu, crop_of(cfg))
    trace = trace_step(cfg, shape, Engine('single'), True, 1)
    assert trace.counts['gradients'] > 0 and sum(trace.flops.values()) > 1e11


def shallow(cfg):
    """The config with the fewest blocks: those that are read, trained, or joined by queries."""
    backbone = cfg.model.backbone
    if backbone.type == 'InternViTAdapter':  # whose out_indices are levels
        stretches = [[i, i] for i in range(len(backbone.interaction_indexes))]
        backbone.update(depth=len(stretches), interaction_indexes=stretches)
        return cfg
    single = len(backbone.out_indices) == 1
    cfg = with_depth(cfg, range(max(len(backbone.out_indices), backbone.get('train_last', 0),
                                    num_deferred(cfg.model))))
    if single:
        cfg.model.backbone.out_indices = cfg.model.backbone.out_indices[-1:]
    return cfg
