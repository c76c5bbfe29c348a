"""InternViTAdapter: published names, and the same numbers as a composition written apart."""
import math

import mmseg_custom  # noqa: F401  (before mmcv.ops, see compat)

# isort: split
import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_networks import ADAPTER
from torch import Tensor, nn

from mmseg_custom.errors import InputError
from mmseg_custom.models import InternViTAdapter

TINY = {name: value for name, value in ADAPTER.items() if name != 'type'}


def build(**changes) -> InternViTAdapter:
    """A network in float32 with distinct random values."""
    torch.manual_seed(0)
    model = InternViTAdapter(**{**TINY, **changes}).float()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15)
    return model


ATTENTION = [f'attn.{part}.{kind}' for part in (
    'sampling_offsets', 'attention_weights', 'value_proj', 'output_proj')
    for kind in ('weight', 'bias')]
NORMS = [f'{part}_norm.{kind}' for part in ('query', 'feat') for kind in ('weight', 'bias')]
EXTRACTOR = [*NORMS, *ATTENTION, *(f'{part}.{kind}' for part in (
    'ffn.fc1', 'ffn.dwconv.dwconv', 'ffn.fc2', 'ffn_norm') for kind in ('weight', 'bias'))]
SPM = ['stem.0.weight', *(f'stem.{i}.{kind}' for i in (1, 4, 7) for kind in ('weight', 'bias')),
       'stem.3.weight', 'stem.6.weight',
       *(f'conv{i}.{rest}' for i in (2, 3, 4) for rest in ('0.weight', '1.weight', '1.bias')),
       *(f'fc{i}.{kind}' for i in (1, 2, 3, 4) for kind in ('weight', 'bias'))]


def test_parameter_names_are_the_published_ones():
    model = build()
    expected = ['level_embed', *(f'spm.{name}' for name in SPM)]
    for i in range(4):
        expected += [f'interactions.{i}.injector.{name}' for name in (
            'gamma', *NORMS, *ATTENTION)]
        expected += [f'interactions.{i}.extractor.{name}' for name in EXTRACTOR]
    expected += [f'interactions.3.extra_extractors.{i}.{name}' for i in (0, 1)
                 for name in EXTRACTOR]
    expected += [f'{part}.{kind}' for part in ('up', 'norm1', 'norm2', 'norm3', 'norm4')
                 for kind in ('weight', 'bias')]
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert sorted(trained) == sorted(expected)
    frozen = {name.split('.')[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {'pos_embed', 'patch_embed', 'blocks'}  # there is no class token
    assert not model.state_dict().keys() - dict(model.named_parameters()).keys()
    # The order of states in an optimizer's checkpoint.
    parts = list(dict.fromkeys(name.split('.')[0] for name in trained))
    assert parts == ['level_embed', 'spm', 'interactions', 'up', 'norm1', 'norm2', 'norm3',
                     'norm4']


def test_shapes_are_the_published_ones():
    with torch.device('meta'):
        model = InternViTAdapter(
            img_size=512, depth=4, interaction_indexes=[[0, 0], [1, 1], [2, 2], [3, 3]],
            cffn_ratio=0.25, deform_ratio=0.25)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes['pos_embed'] == (1, 1025, 3200) and shapes['level_embed'] == (3, 3200)
    assert shapes['patch_embed.proj.weight'] == (3200, 3, 16, 16)
    assert shapes['spm.stem.0.weight'] == (64, 3, 3, 3)
    assert shapes['spm.conv4.0.weight'] == (256, 256, 3, 3)
    assert shapes['spm.fc1.weight'] == (3200, 64, 1, 1)
    injector, extractor = 'interactions.0.injector.', 'interactions.3.extra_extractors.1.'
    assert shapes[injector + 'gamma'] == (3200,)
    assert shapes[injector + 'attn.sampling_offsets.weight'] == (25 * 3 * 4 * 2, 3200)
    assert shapes[injector + 'attn.attention_weights.weight'] == (25 * 3 * 4, 3200)
    assert shapes[injector + 'attn.value_proj.weight'] == (800, 3200)
    assert shapes[extractor + 'attn.sampling_offsets.weight'] == (25 * 4 * 2, 3200)
    assert shapes[extractor + 'attn.output_proj.weight'] == (3200, 800)
    assert shapes[extractor + 'ffn.dwconv.dwconv.weight'] == (800, 1, 3, 3)
    assert shapes['up.weight'] == (3200, 3200, 2, 2) and shapes['norm4.bias'] == (3200,)
    assert model.blocks[0].ls1.gamma.shape == (3200,)  # init_values are not about these


class Reference:
    """The network from its state dict, one query at a time; blocks are those of the network."""

    def __init__(self, model: InternViTAdapter):
        self.model, self.weights = model, model.state_dict()

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.weights[f'{name}.weight'].T + self.weights[f'{name}.bias']

    def norm(self, x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
        return x * self.weights[f'{name}.weight'] + self.weights[f'{name}.bias']

    def attend(self, queries: dict, levels: dict, name: str) -> Tensor:
        """Reads four neighbours of each point; maps (h, w, D) by their strides -> (Q, D)."""
        points, heads = TINY['n_points'], TINY['deform_num_heads']
        values = {s: self.linear(self.norm(x, f'{name}.feat_norm'), f'{name}.attn.value_proj')
                  for s, x in levels.items()}
        results = []
        for grid in queries.values():
            for row, column in ((r, c) for r in range(len(grid)) for c in range(len(grid[0]))):
                query = self.norm(grid[row, column], f'{name}.query_norm')
                offsets = self.linear(query, f'{name}.attn.sampling_offsets').view(
                    heads, len(levels), points, 2)
                weights = self.linear(query, f'{name}.attn.attention_weights').view(
                    heads, -1).softmax(-1).view(heads, len(levels), points)
                parts = []
                for head in range(heads):
                    part = 0
                    for i, each in enumerate(values.values()):
                        h, w, width = each.shape
                        mine = each.view(h, w, heads, width // heads)[:, :, head]
                        for p in range(points):
                            x = (column + 0.5) / grid.shape[1] * w + offsets[head, i, p, 0] - 0.5
                            y = (row + 0.5) / grid.shape[0] * h + offsets[head, i, p, 1] - 0.5
                            part = part + weights[head, i, p] * interpolated(mine, x, y)
                    parts.append(part)
                results.append(self.linear(torch.cat(parts), f'{name}.attn.output_proj'))
        return torch.stack(results)

    def extract(self, priors: dict, tokens: Tensor, name: str) -> dict:
        found = split(self.attend(priors, {16: tokens}, name), priors)
        priors = {s: x + found[s] for s, x in priors.items()}
        hidden = {s: self.linear(self.norm(x, f'{name}.ffn_norm'), f'{name}.ffn.fc1')
                  for s, x in priors.items()}
        kernel, bias = (self.weights[f'{name}.ffn.dwconv.dwconv.{kind}']
                        for kind in ('weight', 'bias'))
        hidden = {s: F.conv2d(x.permute(2, 0, 1)[None], kernel, bias, padding=1,
                              groups=len(kernel))[0].permute(1, 2, 0) for s, x in hidden.items()}
        return {s: x + self.linear(F.gelu(hidden[s]), f'{name}.ffn.fc2')
                for s, x in priors.items()}

    def look(self, image: Tensor) -> dict:
        """The maps (h, w, D) of the spatial prior by their strides."""
        def step(x: Tensor, name: str, stride: int, norm: str) -> Tensor:
            x = F.conv2d(x, self.weights[f'spm.{name}.weight'], stride=stride, padding=1)
            return self.norm(x.permute(0, 2, 3, 1), f'spm.{norm}', 1e-6).permute(0, 3, 1, 2).relu()

        x = step(step(step(image[None], 'stem.0', 2, 'stem.1'), 'stem.3', 1, 'stem.4'), 'stem.6',
                 1, 'stem.7')
        found = [F.max_pool2d(x, 3, 2, 1)]
        for i in (2, 3, 4):
            found.append(step(found[-1], f'conv{i}.0', 2, f'conv{i}.1'))
        return {4 * 2 ** i: F.conv2d(x, self.weights[f'spm.fc{i + 1}.weight'],
                                     self.weights[f'spm.fc{i + 1}.bias'])[0].permute(1, 2, 0)
                for i, x in enumerate(found)}

    def __call__(self, image: Tensor) -> list[Tensor]:
        """(3, H, W) -> four maps (D, h, w)."""
        priors = self.look(image)
        first = priors.pop(4)
        priors = {s: x + self.weights['level_embed'][i] for i, (s, x) in enumerate(priors.items())}
        tokens = F.conv2d(image[None], self.weights['patch_embed.proj.weight'],
                          self.weights['patch_embed.proj.bias'], stride=16)[0].permute(1, 2, 0)
        tokens = tokens + self.weights['pos_embed'][0, 1:].view_as(tokens)
        for i, (start, stop) in enumerate(TINY['interaction_indexes']):
            name = f'interactions.{i}'
            found = self.attend({16: tokens}, priors, f'{name}.injector').view_as(tokens)
            tokens = tokens + self.weights[f'{name}.injector.gamma'] * found
            for block in self.model.blocks[start:stop + 1]:
                tokens = block(tokens.flatten(0, 1)[None]).view_as(tokens)
            for extractor in ('extractor', *(f'extra_extractors.{j}' for j in range(2) if i == 3)):
                priors = self.extract(priors, tokens, f'{name}.{extractor}')
        priors[4] = first + F.conv_transpose2d(
            priors[8].permute(2, 0, 1)[None], self.weights['up.weight'], self.weights['up.bias'],
            stride=2)[0].permute(1, 2, 0)
        maps = []
        for i, (s, x) in enumerate(sorted(priors.items())):
            last = F.interpolate(tokens.permute(2, 0, 1)[None], scale_factor=16 / s,
                                 mode='bilinear', align_corners=False)[0].permute(1, 2, 0)
            maps.append(self.norm(x + last, f'norm{i + 1}', 1e-6).permute(2, 0, 1))
        return maps


def split(rows: Tensor, like: dict) -> dict:
    parts = rows.split([x.shape[0] * x.shape[1] for x in like.values()])
    return {s: part.view_as(x) for (s, x), part in zip(like.items(), parts)}


def interpolated(grid: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The value (d,) at cell coordinates, of zeros outside of the grid (h, w, d)."""
    left, top = math.floor(x), math.floor(y)
    total = torch.zeros(grid.shape[2])
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < grid.shape[0] and 0 <= column < grid.shape[1]:
                total = total + (1 - (x - column).abs()) * (1 - (y - row).abs()) * grid[row, column]
    return total


def test_feature_maps_equal_an_independent_composition():
    model = build().eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found, expected = model(images), [Reference(model)(image) for image in images]
    for i, each in enumerate(found):
        reference = torch.stack([one[i] for one in expected])
        assert each.shape == reference.shape == (2, 32, 8 >> i, 8 >> i)
        assert (each - reference).norm() / reference.norm() < 1e-5


def test_training_lowers_the_loss_and_leaves_the_transformer_alone():
    torch.manual_seed(0)
    model = InternViTAdapter(**TINY).float().train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    images = torch.randn(2, 3, 32, 64)
    goals = [torch.randn(2, 32, 8 >> i, 16 >> i) for i in range(4)]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(8):
        loss = sum(F.mse_loss(each, goal) for each, goal in zip(model(images), goals))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    # From the first step on gradients pass all blocks to the injectors' gamma, which starts at 0.
    assert all(parts['injector'].gamma.abs().min() > 0 for parts in model.interactions)


def test_only_the_adapter_is_in_training_mode():
    model = build(drop_path_rate=0.5).train()
    assert not model.blocks[0].training and not model.patch_embed.training
    assert model.spm.training and model.interactions[0]['extractor'].drop_path.training
    assert model.blocks[1].drop_path.drop_prob > 0  # which would act in training mode


@pytest.mark.parametrize('options, count', [
    (dict(out_indices=[1, 2, 3]), 3), (dict(add_vit_feature=False, use_final_norm=False), 4),
    (dict(with_cffn=False, use_extra_extractor=False), 4)])
def test_other_options_train_all_that_they_have(options, count):
    model = InternViTAdapter(**{**TINY, **options}).float().train()
    maps = model(torch.randn(1, 3, 64, 32))
    assert [tuple(x.shape) for x in maps] == [
        (1, 32, 16 >> i, 8 >> i) for i in range(4)][4 - count:]
    sum(x.square().sum() for x in maps).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_it_starts_as_the_transformer_alone():
    """The injectors add nothing at first."""
    model = InternViTAdapter(**TINY).float()
    torch.manual_seed(1)
    images = torch.randn(1, 3, 32, 32)
    tokens, grid = model._embed(images)
    expected, _ = model._run_blocks(tokens, 0, 4)
    found, _ = model._interact(tokens, model._prior_of(images)[1], grid)
    assert torch.equal(found, expected)


@pytest.mark.parametrize('options, words', [
    (dict(interaction_indexes=None), r'interaction_indexes=None: expected .* e.g. \[\[0, 0\], \['),
    (dict(interaction_indexes=[[0, 1], [2, 4]]), 'from 0 to depth - 1 = 3 without a gap'),
    (dict(interaction_indexes=[[0, 1], [3, 3]]), r'interaction_indexes=\[\[0, 1\], \[3, 3\]\]'),
    (dict(interaction_indexes=[[0, 2]]), 'without a gap'),
    (dict(interaction_indexes=[[0, 3], []]), 'without a gap'),
    (dict(patch_size=14), 'patch_size=14: the adapter meets the tokens at a stride of 16'),
    (dict(out_indices=[3]), r'out_indices=\[3\]: these are levels of the adapter, not blocks'),
    (dict(freeze_vit=False), 'freeze_vit=False: a ViT-Adapter keeps the vision transformer'),
    (dict(with_fpn=True), 'with_fpn=True'),
    (dict(deform_num_heads=3), 'deform_num_heads=3: expected a divisor of embed_dim 32'),
    (dict(deform_ratio=0.03), 'deform_ratio x embed_dim = 0'),
    (dict(adapt=dict(type='lora')), "unknown key in model.backbone: 'adapt'"),
])
def test_options_that_do_not_fit(options, words):
    with pytest.raises(InputError, match=words):
        InternViTAdapter(**{**TINY, **options})


def test_an_image_whose_sides_do_not_fit():
    with pytest.raises(InputError, match='48x32 pixels: .* multiples of 32 .*ResizeToMultiple'):
        build()(torch.randn(1, 3, 48, 32))
