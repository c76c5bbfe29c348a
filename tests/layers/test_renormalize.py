import torch

from mmseg_custom.layers.renormalize import Renormalize

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def normalized(images: torch.Tensor, mean: list[float], std: list[float]) -> torch.Tensor:
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def test_images_get_another_normalisation():
    images = torch.rand(2, 3, 4, 5)
    layer = Renormalize(MEAN, STD, [0.5] * 3, [0.25] * 3)
    torch.testing.assert_close(layer(normalized(images, MEAN, STD)),
                               normalized(images, [0.5] * 3, [0.25] * 3), atol=1e-5, rtol=0)
    assert not layer.state_dict()


def test_the_same_normalisation_changes_not_a_bit():
    images = torch.rand(2, 3, 4, 5)
    layer = Renormalize([x * 255 / 255 for x in MEAN], STD, MEAN, STD)
    assert layer(images) is images
