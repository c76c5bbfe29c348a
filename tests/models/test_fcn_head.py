import pytest
import torch
from mmseg.models import build_head
from mmseg.models.decode_heads import FCNHead as MMSegFCNHead
from torch import nn

LINEAR = dict(type='FCNHead', in_channels=16, channels=16, num_convs=0, concat_input=False,
              dropout_ratio=0.0, num_classes=5, with_norm=True,
              loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0))


def test_linear_head_is_batch_norm_and_a_classifier():
    head = build_head(LINEAR).train()
    nn.init.normal_(head.norm.weight)
    features = torch.randn(4, 16, 6, 6)
    normed = nn.functional.batch_norm(features, None, None, head.norm.weight, head.norm.bias, True)
    expected = nn.functional.conv2d(normed, head.conv_seg.weight, head.conv_seg.bias)
    assert torch.allclose(head([features]), expected, atol=1e-5)
    assert head.norm.running_mean.abs().sum() > 0


def test_names_in_the_checkpoint():
    assert set(build_head(LINEAR).state_dict()) == {
        'conv_seg.weight', 'conv_seg.bias', 'norm.weight', 'norm.bias', 'norm.running_mean',
        'norm.running_var', 'norm.num_batches_tracked'}


def test_without_norm_it_is_the_head_of_mmseg():
    options = dict(in_channels=8, channels=8, num_convs=1, num_classes=5, concat_input=True,
                   norm_cfg=dict(type='BN'))
    theirs = MMSegFCNHead(**options).eval()
    ours = build_head(dict(type='FCNHead', **options)).eval()
    ours.load_state_dict(theirs.state_dict())
    features = [torch.randn(2, 8, 6, 6)]
    assert torch.equal(ours(features), theirs(features))


def test_builds_no_convolution_that_it_drops(monkeypatch):
    built = []
    init = nn.Conv2d.__init__

    def spy(self, in_channels, out_channels, kernel_size, *args, **kwargs):
        built.append((in_channels, out_channels, kernel_size))
        init(self, in_channels, out_channels, kernel_size, *args, **kwargs)

    monkeypatch.setattr(nn.Conv2d, '__init__', spy)
    build_head(LINEAR)
    assert all(kernel == 1 for *_, kernel in built)


@pytest.mark.parametrize('label', [0, 4])
def test_loss_has_gradients(label):
    head = build_head(LINEAR).train()
    losses = head.losses(head([torch.randn(2, 16, 4, 4)]),
                         torch.full((2, 1, 8, 8), label, dtype=torch.long))
    losses['loss_ce'].backward()
    assert head.conv_seg.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('options', [
    {}, dict(loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4, avg_non_ignore=True,
                              class_weight=[1., 2., 3., 4., 5.])),
    dict(loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)),
    dict(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=10)),
    dict(loss_decode=[dict(type='CrossEntropyLoss', loss_name='loss_a'),
                      dict(type='DiceLoss', loss_name='loss_b')])])
def test_loss_is_that_of_mmseg(options):
    head = build_head({**LINEAR, **options}).train()
    logits = torch.randn(2, 5, 4, 4, requires_grad=True)
    labels = torch.randint(0, 5, (2, 1, 56, 56))
    labels[:, :, :9] = 255
    ours, theirs = head.losses(logits, labels), MMSegFCNHead.losses(head, logits, labels)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, rtol=1e-6), name
    gradients = [torch.autograd.grad(sum(v for k, v in found.items() if 'loss' in k), logits)[0]
                 for found in (ours, theirs)]
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-9)


def test_no_class_is_ignored_without_an_index():
    """As in mmseg's loss, where ``ignore_index=None`` ignores nothing."""
    logits, labels = torch.randn(2, 3, 2, 2), torch.randint(3, (2, 1, 8, 8))
    head, expected = (build_head({**LINEAR, 'num_classes': 3, 'ignore_index': index})
                      for index in (None, 255))
    assert torch.equal(head.losses(logits, labels)['loss_ce'],
                       expected.losses(logits, labels)['loss_ce'])
