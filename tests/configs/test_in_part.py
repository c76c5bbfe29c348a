"""The recipes with adapters or last blocks: the published ones, but for what is trained of them."""
import pytest
import torch
from configs.test_recipes import CONFIGS, without
from mmcv import Config
from mmseg.datasets.builder import DATASETS
from mmseg.models import build_segmentor

RECIPES = sorted(path for kind in ('lora', 'last_blocks')
                 for path in CONFIGS.glob(f'intern_vit_*/{kind}/*.py'))
PARTS = ('1of16', '1of8', '1of4', '1of2', '1of1')
SETS = ('ade20k', 'cityscapes', 'coco_stuff164k', 'pascal_context59', 'voc2012aug')
SUFFIX = {'lora': '_lora', 'last_blocks': '_last4'}
# What else the namesake of few-shot recipes of InternViT-300M, one of InternViT-6B, differs in.
SIZES = {'pretrained', 'pretrain_size', 'embed_dim', 'depth', 'num_heads', 'qkv_bias',
         'qk_normalization', 'norm_type', 'out_indices', 'drop_path_rate', 'in_channels',
         'channels', 'num_layers'}


def kind_of(path):
    return path.parent.name


def namesake(path):
    """The recipe that tunes all of the backbone on the same data, and what may differ from it."""
    name = path.stem.removesuffix(SUFFIX[kind_of(path)]).replace('lr2e-4', 'lr4e-5')
    if name.startswith('upernet'):
        return Config.fromfile(path.parents[1] / f'full_tuning/{name}.py'), set()
    name = name.replace('300m', '6b')
    return (Config.fromfile(CONFIGS / f'intern_vit_6b/few_shot/{name}.py'),
            SIZES if '300m' in path.stem else set())


def test_there_is_one_for_each_part_of_ade20k_and_each_data_set():
    found = {(path.parents[1].name, kind_of(path), next(
        word for word in (*PARTS, *SETS) if f'_{word}_' in path.stem and (
            word in PARTS or path.stem.startswith('upernet')))) for path in RECIPES}
    assert len(found) == len(RECIPES) == 2 * 2 * (len(PARTS) + len(SETS))
    assert len({path.stem for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts}) == len(
        [path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts])  # work dirs


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_it_is_its_namesake_with_less_trained(path):
    cfg, (full, sizes) = Config.fromfile(path), namesake(path)
    assert cfg.total_batch == 16
    assert cfg.data.samples_per_gpu > 1  # pooled to one pixel, one image is too few for batch norm
    for section in ('data', 'lr_config', 'runner', 'checkpoint_config', 'evaluation',
                    'custom_hooks', 'custom_imports'):
        assert without(cfg[section], {'samples_per_gpu'}) == without(
            full[section], {'samples_per_gpu'}), section
    assert without(cfg.optimizer, {'lr', *sizes}) == without(full.optimizer, {'lr', *sizes})
    if kind_of(path) == 'lora':
        assert cfg.model.backbone.pop('adapt') == dict(type='lora', r=16, alpha=32)
        assert cfg.optimizer.lr == 2e-4
    else:
        assert cfg.model.backbone.pop('train_last') == 4
        assert cfg.optimizer.lr == 4e-5
    assert without(cfg.model, sizes) == without(full.model, sizes)
    assert cfg.optimizer.paramwise_cfg.num_layers == cfg.model.backbone.depth
    assert cfg.model.decode_head.num_classes == len(DATASETS.get(cfg.data.train.type).CLASSES)


@pytest.mark.parametrize('path', [path for path in RECIPES if path.stem.startswith('upernet')
                                  and 'ade20k' in path.stem or '1of1_' in path.stem],
                         ids=lambda path: path.stem)
def test_it_trains_what_it_says(path):
    cfg = Config.fromfile(path)
    cfg.model.backbone.pretrained = None
    depth, blocks = cfg.model.backbone.depth, range(cfg.model.backbone.depth)
    if kind_of(path) == 'lora' and path.stem.startswith('linear'):
        blocks = cfg.model.backbone.adapt.blocks = [0, depth - 1]  # all of them take a second
    with torch.device('meta'):
        model = build_segmentor(cfg.model)
    trained = [name for name, parameter in model.backbone.named_parameters()
               if parameter.requires_grad and not name.startswith('up')]
    if kind_of(path) == 'lora':
        assert all('.lora_' in name for name in trained)
        assert len(trained) == 4 * 2 * len(blocks)  # A and B of qkv, proj, fc1, fc2
    else:
        blocks = range(depth - 4, depth)
    assert {int(name.split('.')[1]) for name in trained} == set(blocks)
    assert all(parameter.requires_grad for parameter in model.decode_head.parameters())
