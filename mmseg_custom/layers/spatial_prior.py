"""The convolutions beside a vision transformer that see an image at four strides.

B batch, C channels, H W pixels, D width.
"""
from torch import Tensor, nn

from .norm import EPS, LayerNorm2d


class SpatialPriorModule(nn.Module):
    """A convolutional stem and its maps of strides 4, 8, 16 and 32 (Chen et al., "ViT-Adapter").

    Args:
        width: Channels of the stem; 2 and 4 times as many further on.
        dim: Channels D of the results.
        in_chans: Channels of the image.
        with_stride_4: Whether the map of stride 4 is among the results.
    """

    def __init__(self, width: int, dim: int, in_chans: int = 3, with_stride_4: bool = True):
        super().__init__()

        def step(channels: int, to: int, stride: int = 2) -> list[nn.Module]:
            return [nn.Conv2d(channels, to, 3, stride=stride, padding=1, bias=False),
                    LayerNorm2d(to, eps=EPS), nn.ReLU(inplace=True)]

        self.stem = nn.Sequential(*step(in_chans, width), *step(width, width, stride=1),
                                  *step(width, width, stride=1),
                                  nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
        self.conv2 = nn.Sequential(*step(width, 2 * width))
        self.conv3 = nn.Sequential(*step(2 * width, 4 * width))
        self.conv4 = nn.Sequential(*step(4 * width, 4 * width))
        self.with_stride_4 = with_stride_4
        if with_stride_4:
            self.fc1 = nn.Conv2d(width, dim, kernel_size=1)
        self.fc2 = nn.Conv2d(2 * width, dim, kernel_size=1)
        self.fc3 = nn.Conv2d(4 * width, dim, kernel_size=1)
        self.fc4 = nn.Conv2d(4 * width, dim, kernel_size=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Computes maps of an image.

        Args:
            images: (B, in_chans, H, W), H and W multiples of 32.

        Returns:
            Maps (B, D, H/s, W/s) of the strides s = 4 (if asked for), 8, 16 and 32.
        """
        first = self.stem(images)
        second = self.conv2(first)
        third = self.conv3(second)
        maps = [self.fc2(second), self.fc3(third), self.fc4(self.conv4(third))]
        return [self.fc1(first), *maps] if self.with_stride_4 else maps
