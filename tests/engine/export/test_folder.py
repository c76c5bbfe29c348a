"""What a checkpoint is exported as: weights, description, figures and card."""
import json
from pathlib import Path

import pytest
import torch
import yaml
from helpers.data import SMALL_LINEAR, write_config
from helpers.exported import draw_validation, export, write_checkpoint
from safetensors.torch import load_file

from mmseg_custom.checkpoint.provenance import sha256_of
from mmseg_custom.deploy import Segmentor
from mmseg_custom.engine.build import build_network
from mmseg_custom.engine.config import load_config
from mmseg_custom.errors import InputError


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """Folder with a config, and a checkpoint of a small linear probe."""
    folder = tmp_path_factory.mktemp('export')
    config = write_config(folder / 'small.py', draw_validation(folder), extra=SMALL_LINEAR)
    write_checkpoint(config, folder / 'small.pth')
    return folder


def test_weights_are_stored_as_tests_compute_with_them(small, tmp_path):
    settings = {'model.backbone.depth': 3}
    write_checkpoint(small / 'small.py', tmp_path / 'deep.pth', settings)
    export(small / 'small.py', tmp_path / 'deep.pth', tmp_path / 'out', settings)
    weights = load_file(tmp_path / 'out/model.safetensors')
    assert {name.split('.')[0] for name in weights} == {'backbone', 'decode_head'}
    assert not any(name.startswith('backbone.blocks.2.') for name in weights)  # is not read
    assert {tensor.dtype for name, tensor in weights.items() if name.startswith('backbone')} == {
        torch.bfloat16}
    assert weights['decode_head.conv_seg.weight'].dtype == torch.float32
    config = json.loads((tmp_path / 'out/config.json').read_text())
    assert config['backbone']['depth'] == 2 and 'pretrained' not in config['backbone']
    assert config['decode_head']['loss_decode'] is None


def test_averaged_weights_are_exported(small, tmp_path):
    content = torch.load(small / 'small.pth', weights_only=False)
    content['state_dict']['ema_decode_head_conv_seg_bias'] = torch.full((150,), 7.)
    torch.save(content, tmp_path / 'ema.pth')
    export(small / 'small.py', tmp_path / 'ema.pth', tmp_path / 'out')
    bias = load_file(tmp_path / 'out/model.safetensors')['decode_head.conv_seg.bias']
    assert torch.equal(bias, content['state_dict']['decode_head.conv_seg.bias'])


@pytest.mark.slow
def test_a_folder_of_timm_is_copied_beside_the_weights(small, tmp_path):
    from timm.models import create_model

    upstream = tmp_path / 'upstream'
    upstream.mkdir()
    options = dict(embed_dim=32, depth=2, num_heads=2, img_size=56)
    network = create_model('vit_tiny_patch16_224', **options)
    (upstream / 'config.json').write_text(json.dumps(dict(
        architecture='vit_tiny_patch16_224', model_args=options,
        pretrained_cfg=dict(mean=[0.5] * 3, std=[0.25] * 3))))
    torch.save(network.state_dict(), upstream / 'pytorch_model.bin')
    config = small / 'timm.py'
    write_config(config, small / 'ADEChallengeData2016', extra=SMALL_LINEAR + f"""
model['backbone'] = dict(_delete_=True, type='FrozenViT', name={str(upstream)!r})
model['test_cfg'] = dict(crop_size=(64, 64), stride=(64, 64))
""")
    write_checkpoint(config, tmp_path / 'timm.pth')
    export(config, tmp_path / 'timm.pth', tmp_path / 'out')
    upstream.rename(tmp_path / 'gone')
    segmentor = Segmentor.from_pretrained(tmp_path / 'out', device='cpu')
    assert segmentor.config['backbone']['name'] == 'backbone'
    assert segmentor.backbone.own_std == (0.25,) * 3


def test_the_weights_of_a_frozen_backbone_come_from_its_file(small, tmp_path):
    config, weights = tmp_path / 'frozen.py', tmp_path / 'backbone.pth'
    write_config(config, small / 'ADEChallengeData2016', extra=SMALL_LINEAR)
    network = build_network(load_config(str(config)))
    torch.save(network.backbone.state_dict(), weights)
    write_checkpoint(config, tmp_path / 'small.pth',
                     {'model.backbone.pretrained': str(weights)})
    assert (tmp_path / 'small.pth').stat().st_size < weights.stat().st_size
    export(config, tmp_path / 'small.pth', tmp_path / 'out')
    exported = load_file(tmp_path / 'out/model.safetensors')
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(exported[f'backbone.{name}'], tensor)
    card = (tmp_path / 'out/README.md').read_text()
    assert '| Backbone weights | backbone.pth |' in card and sha256_of(str(weights)) in card
    assert 'trained it on ADE20KDataset' in card
    assert 'began with: backbone.pth;' in (tmp_path / 'out/LICENSE.md').read_text()


def test_the_card_of_an_untrained_network_says_so(small, tmp_path):
    export(small / 'small.py', 'none', tmp_path / 'out')
    card = (tmp_path / 'out/README.md').read_text()
    assert 'exported it untrained' in card and 'datasets' not in card
    assert 'began with' not in (tmp_path / 'out/LICENSE.md').read_text()
    with pytest.raises(InputError, match='with the untrained network'):
        export(small / 'small.py', 'none', tmp_path / 'other', results='eval.json')


def results_of(checkpoint: Path, sha256: str) -> dict:
    return dict(config='small.py', metric=dict(mIoU=0.4567, aAcc=0.9, **{'IoU.wall': 0.5}),
                interval=dict(figure='mIoU', level=0.95, low=0.44, high=0.47), images=5,
                date='2026-11-27 03:00:00', per_image='eval.npz', image_folder='data/validation',
                classes=['wall'], palette=[[1, 2, 3]], checkpoint=dict(sha256=sha256))


@pytest.fixture
def figures(monkeypatch):
    """Lets results be read without the contributions of single images."""
    from mmseg_custom.engine.export import figures
    from mmseg_custom.evaluation.results import Results

    monkeypatch.setattr(figures, 'read_results', lambda path: Results(
        str(path), json.loads(Path(path).read_text()), None))


def test_the_card_has_figures_with_intervals(small, tmp_path, figures):
    digest = sha256_of(str(small / 'small.pth'))
    beside = small / 'eval_single_scale_1.json'
    beside.write_text(json.dumps(results_of(small / 'small.pth', digest)))
    several = small / 'eval_multi_scale_2.json'  # newer, of tests that the folder does not repeat
    several.write_text(beside.read_text().replace('0.4567', '0.5'))
    export(small / 'small.py', small / 'small.pth', tmp_path / 'out', license='mit')
    beside.unlink()
    several.unlink()
    text = (tmp_path / 'out/README.md').read_text()
    _, front, card = text.split('---\n', 2)
    found = yaml.safe_load(front)
    assert found['license'] == 'mit' and found['pipeline_tag'] == 'image-segmentation'
    assert found['datasets'] == ['ade20k'] and found['metrics'] == ['mean_iou', 'accuracy']
    result, = found['model-index'][0]['results']
    assert result['metrics'][0] == dict(type='mean_iou', name='mIoU', value=0.4567, args=dict(
        interval=[0.44, 0.47], level=0.95))
    assert '| mIoU | 45.67 | 44.00 to 47.00 |' in card and digest in card and 'small.pth' in card
    assert 'mit' in (tmp_path / 'out/LICENSE.md').read_text()


def test_results_of_another_checkpoint(small, tmp_path, figures):
    path = tmp_path / 'eval_other.json'
    path.write_text(json.dumps(results_of(small / 'small.pth', 'f' * 64)))
    with pytest.raises(InputError, match='are of another checkpoint'):
        export(small / 'small.py', small / 'small.pth', tmp_path / 'out', results=str(path))
    assert not (tmp_path / 'out').exists()
    export(small / 'small.py', small / 'small.pth', tmp_path / 'out')
    assert 'None: no test of this checkpoint' in (tmp_path / 'out/README.md').read_text()


@pytest.mark.parametrize('change, message', [
    ("model['decode_head'] = dict(_delete_=True, type='SegformerHead', in_channels=[32], "
     "in_index=[0], channels=8, num_classes=150)",
     "model.decode_head.type='SegformerHead' cannot be exported"),
    ("model['neck'] = dict(type='FPN', in_channels=[32], out_channels=32, num_outs=1)",
     'model.neck cannot be exported'),
    ("model['decode_head'].update(act_cfg=dict(type='Swish'), num_convs=1)",
     'model.decode_head has layers that mmcv alone can build'),
    ("test_pipeline[1]['transforms'].insert(1, dict(type='RGB2Gray'))", 'step RGB2Gray'),
])
def test_what_cannot_be_exported_is_refused(small, tmp_path, change, message):
    config = write_config(tmp_path / 'a.py', small / 'ADEChallengeData2016',
                          extra=f'{SMALL_LINEAR}{change}\n')
    with pytest.raises(InputError) as error:
        export(config, 'none', tmp_path / 'out')
    assert message in str(error.value) and not list(tmp_path.glob('out*'))


def test_an_existing_folder_is_left_alone(small, tmp_path):
    (tmp_path / 'out').mkdir()
    with pytest.raises(InputError, match='out exists: remove it first'):
        export(small / 'small.py', small / 'small.pth', tmp_path / 'out')
