"""Adapters, last blocks and position embeddings that are trained on frozen weights of 8 bits."""
import pytest
import torch
from helpers.data import prepare
from helpers.logs import logged
from helpers.runs import write_small_linear
from torch import Tensor, nn

from mmseg_custom.checkpoint import load_segmentor, save_checkpoint
from mmseg_custom.checkpoint.checkpoint import open_checkpoint
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.parallelize import choose_engine, unwrap
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.engine.build import build_model, build_network
from mmseg_custom.engine.frozen_dtype import map_errors
from mmseg_custom.errors import InputError
from mmseg_custom.layers.lora import is_adapter, lora_layers, native_name
from mmseg_custom.layers.quantized_linear import DTYPES, quantized_layers
from mmseg_custom.models import InternViT6B

TINY = dict(embed_dim=64, depth=4, num_heads=2, img_size=56, out_indices=[0, 2])
LORA = dict(type='lora', r=4)
KINDS = ('int8', pytest.param('fp8', marks=pytest.mark.slow))
WAYS = dict(lora=dict(adapt=LORA), lora_of_some_blocks=dict(adapt={**LORA, 'blocks': [1, 2]}),
            last_blocks=dict(train_last=1), norms=dict(train_last=1, train_norms=True),
            positions=dict(freeze_vit=True, unfreeze_pos_embed=True))


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> str:
    """A file with the weights of a tiny network."""
    torch.manual_seed(0)
    path = str(tmp_path_factory.mktemp('weights') / 'backbone.pth')
    torch.save(InternViT6B(**TINY).state_dict(), path)
    return path


def images() -> Tensor:
    return torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def maps(backbone: nn.Module) -> list[Tensor]:
    return backbone(images())


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def change_adapters(backbone: nn.Module) -> None:
    """Gives B values, so that adapters change the feature maps."""
    for _, layer in lora_layers(backbone):
        nn.init.normal_(layer.lora_B['default'].weight, std=0.1)


@pytest.mark.parametrize('kind', DTYPES)
def test_new_adapters_leave_the_feature_maps_bit_for_bit(kind, weights):
    frozen = InternViT6B(**TINY, freeze_vit=True, frozen_dtype=kind, pretrained=weights)
    adapted = InternViT6B(**TINY, adapt=LORA, frozen_dtype=kind, pretrained=weights)
    assert equal(maps(adapted), maps(frozen))
    trained = adapted.train()(images())  # with autograd, in training mode
    assert all(x.requires_grad for x in trained) and equal(trained, maps(frozen))
    change_adapters(adapted)
    assert not equal(maps(adapted), maps(frozen))


@pytest.mark.parametrize('kind', DTYPES)
@pytest.mark.parametrize('way', WAYS)
def test_a_step_changes_what_is_trained_and_nothing_else(kind, way, weights):
    backbone = InternViT6B(**TINY, **WAYS[way], frozen_dtype=kind, pretrained=weights)
    model = nn.Module()
    model.backbone = backbone
    apply_precision(model, torch.bfloat16, 'cpu')
    change_adapters(backbone)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    trained = [native_name(name) for name, p in backbone.named_parameters() if p.requires_grad]
    optimizer = torch.optim.SGD((p for p in backbone.parameters() if p.requires_grad), lr=1e-3)
    sum(x.square().sum() for x in backbone.train()(images())).backward()
    optimizer.step()
    changed = {name for name, value in backbone.state_dict().items()
               if not torch.equal(value, before[name])}
    assert changed == set(trained) and trained
    assert all(p.dtype == torch.float32 for p in backbone.parameters() if p.requires_grad)
    blocks = range(2) if way in ('last_blocks', 'norms') else range(3)
    for i, block in enumerate(backbone.blocks[:3]):
        assert len(quantized_layers(block)) == (4 if i in blocks else 0)


@pytest.mark.parametrize('kind', KINDS)
def test_gradients_of_adapters_are_near_those_over_bfloat16(kind, weights):
    found = {}
    for frozen_dtype in (kind, None):
        torch.manual_seed(0)
        backbone = InternViT6B(**TINY, adapt=LORA, frozen_dtype=frozen_dtype, pretrained=weights)
        change_adapters(backbone)
        sum(x.square().sum() for x in backbone.train()(images())).backward()
        found[frozen_dtype] = torch.cat([p.grad.flatten().float() for p in backbone.parameters()
                                         if p.requires_grad])
    assert (found[kind] - found[None]).norm() / found[None].norm() < 0.1


@pytest.mark.parametrize('way', WAYS)
def test_errors_are_measured_with_what_is_trained_in_evaluation_mode(way, weights):
    options = {**TINY, **WAYS[way], 'drop_path_rate': 0.9, 'pretrained': weights}
    rounded, plain = InternViT6B(**options, frozen_dtype='int8'), InternViT6B(**options)
    change_adapters(rounded)
    plain.load_state_dict({**plain.state_dict(), **{
        name: value for name, value in rounded.state_dict().items() if is_adapter(name)}})
    modes = [module.training for module in rounded.modules()]
    found = map_errors(rounded, images())
    assert [module.training for module in rounded.modules()] == modes
    pairs = zip(maps(rounded.eval()), maps(plain.eval()))
    assert found == pytest.approx([float((x - y).norm() / y.norm()) for x, y in pairs])
    assert all(0 < error < 0.03 for error in found)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with data, a config and the weights of its backbone."""
    folder = tmp_path_factory.mktemp('frozen_dtype')
    write_small_linear(folder)
    return folder


def prepared(folder, way: dict, kind: str | None, **settings):
    return prepare(folder / 'config.py', ['train'], {
        **{f'model.backbone.{name}': value for name, value in
           {'freeze_vit': False, **way, 'frozen_dtype': kind}.items()}, **settings},
        work_dir=str(folder / 'work'), seed=3)


def built(folder, way: dict, kind: str | None, **settings) -> nn.Module:
    torch.manual_seed(0)
    return unwrap(build_model(prepared(folder, way, kind, **settings)))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('way', ['lora', 'last_blocks'])
def test_checkpoints_hold_what_is_trained(kind, way, folder, tmp_path):
    path, options = str(tmp_path / 'trained.pth'), WAYS[way]
    with logged() as lines:
        model = built(folder, options, kind)
    assert any(f'frozen_dtype: {kind}, rounds weights; relative error' in line for line in lines)
    change_adapters(model.backbone)
    save_checkpoint(model, path)
    checkpoint = open_checkpoint(path)
    record = checkpoint.meta['frozen_dtype']
    assert record['dtype'] == kind and 0 < record['map_errors'][1] < 0.03
    assert (checkpoint.meta.get('adapt') or {}).get('r') == options.get('adapt', {}).get('r')
    assert all(name.startswith('decode_head.') or is_adapter(name) or way == 'last_blocks'
               and name.startswith('backbone.blocks.1.') for name in checkpoint.weights)
    for other in (kind, None):  # the weights that they belong to have not been rounded
        cfg = prepared(folder, options, other).cfg
        found, expected = build_network(cfg, on_meta=True), build_network(cfg, pretrained=True)
        for network in (found, expected):
            apply_precision(network, torch.bfloat16)
        load_segmentor(found, path)
        expected.load_state_dict({**expected.state_dict(), **torch.load(path)['state_dict']})
        assert equal(maps(found.backbone), maps(expected.backbone))
        assert equal(maps(found.backbone), maps(model.backbone)) == (other == kind)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('way', ['lora', 'last_blocks'])
def test_a_backbone_of_no_file_is_saved_whole(kind, way, folder, tmp_path):
    path = str(tmp_path / 'whole.pth')
    cfg = prepared(folder, WAYS[way], kind, **{'model.backbone.pretrained': None}).cfg
    model, found = build_network(cfg), build_network(cfg, on_meta=True)
    change_adapters(model.backbone)
    save_checkpoint(model, path)
    load_segmentor(found, path)
    assert equal(maps(found.backbone), maps(model.backbone))
    other = prepared(folder, WAYS[way], {'int8': 'fp8', 'fp8': 'int8'}[kind]).cfg
    with pytest.raises(InputError, match='another format of 8 bits'):
        load_segmentor(build_network(other, on_meta=True), path)


def test_adapters_start_from_a_linear_probe(folder, tmp_path):
    probe = built(folder, dict(freeze_vit=True), 'int8')
    nn.init.normal_(probe.decode_head.conv_seg.weight)
    save_checkpoint(probe, str(tmp_path / 'probe.pth'))
    model = built(folder, WAYS['lora'], 'int8', load_from=str(tmp_path / 'probe.pth'))
    assert torch.equal(model.decode_head.conv_seg.weight, probe.decode_head.conv_seg.weight)
    assert equal(maps(model.backbone.eval()), maps(probe.backbone))
    assert model.backbone.frozen_record == probe.backbone.frozen_record


def test_weights_of_8_bits_are_never_sharded(folder, monkeypatch):
    # With the norms of the other one, the last of two blocks is more than half.
    part = dict(train_last=1, train_norms=True)
    model = build_network(prepared(folder, part, 'int8').cfg)
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)
    assert choose_engine(Engine(), model) == 'ddp'


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('way', ['lora', 'last_blocks'])
def test_a_run_is_resumed_bit_for_bit(kind, way, folder, tmp_path, run_tool):
    options = {'adapt.r': 4, 'adapt.type': 'lora'} if way == 'lora' else WAYS[way]
    settings = [f'model.backbone.{name}={value}' for name, value in options.items()]
    arguments = [folder / 'config.py', '--device', 'cpu', '--seed', 1, '--no-validate',
                 '--cfg-options', 'model.backbone.freeze_vit=False',
                 f'model.backbone.frozen_dtype={kind}', *settings]
    code, _, err = run_tool('train.py', *arguments, '--work-dir', tmp_path / 'whole')
    assert code == 0, err
    code, _, err = run_tool('train.py', *arguments, '--work-dir', tmp_path / 'resumed',
                            '--resume-from', tmp_path / 'whole/iter_2.pth')
    assert code == 0, err
    found, expected = (torch.load(tmp_path / name / 'iter_4.pth') for name in ('resumed', 'whole'))
    assert found['state_dict'].keys() == expected['state_dict'].keys()
    for name, value in expected['state_dict'].items():
        assert torch.equal(found['state_dict'][name], value), name
    assert found['meta']['frozen_dtype'].keys() == expected['meta']['frozen_dtype'].keys()
    page = (tmp_path / 'whole/README.md').read_text()
    assert 'Frozen weights' in page and 'relative error' in page
