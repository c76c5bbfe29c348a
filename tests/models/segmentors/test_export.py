"""Segmentors as programs of torch.export and, where the packages are there, of ONNX."""
import importlib.util

import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmseg.models import build_segmentor
from torch import nn
from torch.export import Dim


class Logits(nn.Module):
    """Logits (B, K, H, W) of images (B, 3, H, W), as docs/testing.md has it."""

    def __init__(self, segmentor: nn.Module):
        super().__init__()
        self.segmentor = segmentor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.segmentor.encode_decode(images, None)


def logits_of(head='linear', **options) -> Logits:
    return Logits(build_segmentor(segmentor_config(head, **options)).float()).eval()


@pytest.mark.parametrize('head, depth, strict', [
    ('upernet', 4, False), pytest.param('linear', 1, True, marks=pytest.mark.slow)])
def test_exported_program_gives_the_same_logits(tmp_path, head, depth, strict):
    network, images = logits_of(head, depth=depth), torch.randn(2, 3, 56, 84)
    with torch.no_grad():
        network(images)  # fills the cache of position embeddings, which must not enter the program
        program = torch.export.export(network, (images,), strict=strict)
        torch.export.save(program, tmp_path / 'a.pt2')
        program = torch.export.load(tmp_path / 'a.pt2').module()
        assert torch.equal(program(images), network(images))
        weight = 'segmentor.backbone.pos_embed'
        program.get_parameter(weight).mul_(2)
        network.get_parameter(weight).mul_(2)
        assert torch.equal(program(images), network(images))


def test_program_for_images_of_any_number_and_size():
    network = logits_of(depth=1)
    height, width = (14 * Dim(side, min=2, max=40) for side in 'hw')
    with torch.no_grad():
        program = torch.export.export(network, (torch.randn(2, 3, 56, 84),), dynamic_shapes=(
            {0: Dim('b', min=1, max=8), 2: height, 3: width},)).module()
        for shape in ((1, 3, 28, 28), (3, 3, 70, 42)):
            images = torch.randn(shape)
            torch.testing.assert_close(program(images), network(images))


def test_traced_program_follows_its_weights():
    network, images = logits_of(depth=1), torch.randn(1, 3, 56, 84)
    with torch.no_grad():
        network(images)
        traced = torch.jit.trace(network, images)
        network.segmentor.backbone.pos_embed.mul_(2)
        assert torch.equal(traced(images), network(images))


@pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in
                        ('onnx', 'onnxruntime', 'onnxscript')), reason='no onnx here')
@pytest.mark.parametrize('dynamo', [False, pytest.param(True, marks=pytest.mark.skipif(
    torch.__version__ < '2.9', reason='torch.onnx of before PyTorch 2.9'))])
def test_onnx_gives_the_same_logits(tmp_path, dynamo):
    import onnxruntime
    network, images = logits_of(), torch.randn(1, 3, 56, 84)
    with torch.no_grad():
        torch.onnx.export(network, (images,), str(tmp_path / 'a.onnx'), dynamo=dynamo)
        session = onnxruntime.InferenceSession(tmp_path / 'a.onnx')
        found, = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), network(images), rtol=1e-4, atol=1e-5)
