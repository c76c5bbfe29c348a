from types import SimpleNamespace

import pytest
from mmcv import Config

from mmseg_custom.engine.identity import identity, refuse_another
from mmseg_custom.errors import InputError

IMAGES = SimpleNamespace(img_infos=[{'filename': 'a.jpg'}, {'filename': 'b.jpg'}])


def parts(images=IMAGES, step_images=4, seed=3, diff_seed=False, **changes) -> dict:
    cfg = Config(dict(
        model=dict(backbone=dict(depth=2, pretrained='a.pth', with_cp=True), test_cfg=dict(n=1)),
        optimizer=dict(type='AdamW', lr=0.1), lr_config=dict(policy='poly'), work_dir='a',
        runner=dict(max_iters=4), data=dict(train=dict(pipeline=[dict(type='Crop', size=(2, 2))]))))
    cfg.merge_from_dict(changes)
    return identity(cfg, images, step_images, seed, diff_seed)


@pytest.mark.parametrize('harmless', [
    {'model.backbone.pretrained': None}, {'model.backbone.with_cp': False}, {'work_dir': 'b'},
    {'model.backbone.pretrain_size': 112},
    {'runner.max_iters': 9}, {'model.test_cfg.n': 2}, {'checkpoint_config.interval': 1}])
def test_may_change(harmless):
    refuse_another(parts(), parts(**harmless), 'a.pth')
    refuse_another({**parts(), 'model.backbone.pretrain_size': '56'}, parts(), 'older.pth')
    refuse_another(None, parts(**harmless), 'of another program')


@pytest.mark.parametrize('changes, message', [
    ({'model.backbone.depth': 3}, 'model.backbone.depth was 2 and is 3 here; restore'),
    ({'model.head.type': 'FCN'}, 'model.head.type was not set and is "FCN" here'),
    ({'optimizer.lr': 0.2}, 'optimizer.lr was 0.1 and is 0.2 here'),
    ({'seed': 4}, 'seed was 3 and is 4 here'),
    ({'diff_seed': True}, 'seed was 3 and is 3 \\+ rank here'),
    ({'data.train.pipeline.0.size': (3, 3)}, 'data.train.pipeline was '),
    ({'step_images': 8, 'seed': 4},
     r'images a step was 4 and is 8 here \(1 more differ\); give --total-batch 4 to'),
    ({'images': SimpleNamespace(img_infos=IMAGES.img_infos[:1])},
     'list of images was 2 images, SHA-256 .* and is 1 images'),
])
def test_may_not_change(changes, message):
    with pytest.raises(InputError, match=f'^a.pth belongs to another run: {message}'):
        refuse_another(parts(), parts(**changes), 'a.pth')
