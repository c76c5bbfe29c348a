"""An exported segmentor: images in, label maps out, with torch, timm, safetensors and Pillow alone.

    segmentor = Segmentor.from_pretrained('segmentor')
    labels = segmentor('image.jpg')                     # (H, W), numbers of segmentor.classes
    segmentor.colorize(labels).save('labels.png')

H W pixels, K classes, B windows, h w cells of the head's logits.
"""
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..errors import InputError, hint
from ..models.segmentors.image_views import ImageView
from ..models.segmentors.window_inference import WindowInference
from .build import build_parts, fill_from, set_precision
from .config import read_config
from .hub import locate_folder
from .images import ImageSource, read_image
from .preprocessing import Preprocessing
from .runtimes import RUNTIMES, open_runtime

IMAGES_AT_ONCE = 8  # whose windows go through the network together; their logits are in memory
Labels = np.ndarray


class Segmentor(WindowInference, nn.Module):
    """Labels images as ``tools/test.py`` does with the checkpoint that it was exported from.

    Attributes:
        classes: Names of the K classes.
        palette: Colours of the classes, (K, 3), uint8, RGB.
        first_label: Number of the first class in label files of its data set: 1 where 0 means
            "other" (``reduce_zero_label``), else 0. Label maps here begin at 0 all the same.
        ignore_index: Number of pixels without a class in label files of its data set.
        config: Content of ``config.json``.

    Args:
        config: Content of ``config.json``, checked: see :mod:`.config`.
        backbone: Network of windows (B, 3, H, W) that returns feature maps.
        decode_head: Network of feature maps that returns logits (B, K, h, w).
        device: Device to compute on.
        runtime: Function of windows (B, 3, H, W) that returns float32 logits (B, K, h, w) in the
            place of the two networks, which have no weights then.
    """

    def __init__(self, config: Mapping[str, Any], backbone: nn.Module, decode_head: Any,
                 device: torch.device, runtime: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.config, self._device, self._runtime = dict(config), device, runtime
        self.backbone, self.decode_head = backbone, decode_head
        self.test_cfg = config['windows']
        self.align_corners = decode_head.align_corners
        self.out_channels = decode_head.out_channels
        self.classes: list[str] = list(config['classes'])
        self.palette = np.array(config['palette'], np.uint8)
        self.first_label, self.ignore_index = config['first_label'], config['ignore_index']
        self._prepare = Preprocessing(**config['preprocessing'])

    @property
    def device(self) -> torch.device:
        """Device that it computes on: that of its weights, or of its runtime."""
        return self._device if self._runtime is not None else next(self.parameters()).device

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str],
                        device: str | torch.device | None = None,
                        revision: str | None = None, runtime: str = 'torch',
                        threads: int | None = None) -> 'Segmentor':
        """Loads an exported segmentor. No code of the folder is run, except with runtime 'aot'.

        On the CPU, weights are views of the mapped file: the file must not be changed in place.

        Args:
            name: Folder that ``tools/export.py`` wrote, or name of a repository of the Hugging Face
                hub that holds one, which needs the library huggingface_hub.
            device: Device to compute on. Default: 'cuda' where there is a GPU, else 'cpu'.
            revision: Branch, tag or commit of the repository.
            runtime: What runs the network: 'torch', 'onnx' (onnxruntime on ``model.onnx``), or
                'aot' (``model.pt2`` of AOTInductor, which is machine code of the folder).
            threads: Number of threads of onnxruntime on the CPU; default: as many as PyTorch has.

        Raises:
            InputError: If the folder is not one of this format, of a later version or damaged, the
                repository cannot be fetched, or there is nothing for the runtime.
        """
        if runtime not in RUNTIMES:
            raise InputError(f'runtime={runtime!r}{hint(runtime, RUNTIMES)}: expected one of '
                             f'{", ".join(map(repr, RUNTIMES))}')
        folder = locate_folder(os.fspath(name), revision, runtime)
        config = read_config(folder)
        place = choose_device(device)
        if runtime != 'torch':
            return cls(config, *build_parts(config, folder), place,
                       open_runtime(runtime, folder, place, threads))
        segmentor = cls(config, *build_parts(config, folder), place)
        set_precision(segmentor, config, place.type)
        fill_from(segmentor, folder)
        return segmentor.requires_grad_(False).eval().to(place)

    def forward(self, images: ImageSource | list[ImageSource]) -> Labels | list[Labels]:
        """Computes label maps.

        Args:
            images: An image, or a list of images of any sizes: paths, images of Pillow, or arrays
                (H, W, 3) of uint8 in RGB.

        Returns:
            The label map (H, W) of the image in its own size, upright by its EXIF orientation:
            numbers of classes, 0..K-1, in uint8, or in int16 for more than 256 classes. For a list,
            a list of them.

        Raises:
            InputError: If an image cannot be read.
        """
        if not isinstance(images, (list, tuple)):
            return self._label_images([images])[0]
        found: list[Labels] = []
        for start in range(0, len(images), IMAGES_AT_ONCE):
            found += self._label_images(images[start:start + IMAGES_AT_ONCE])
        return found

    def colorize(self, labels: Labels) -> Image.Image:
        """Paints a label map (H, W) in the colours of its classes; returns an image with a palette.

        Raises:
            InputError: If there are more than 256 classes, or a label is none of them.
        """
        labels = np.asarray(labels)
        if len(self.classes) > 256 or labels.ndim != 2 or labels.size and not (
                0 <= labels.min() and labels.max() < len(self.classes)):
            raise InputError(f'labels of the shape {labels.shape}: expected (height, width), '
                             f'numbers of 0..{len(self.classes) - 1}, of at most 256 classes')
        picture = Image.fromarray(labels.astype(np.uint8), mode='L')
        picture.putpalette(self.palette.flatten().tolist())
        return picture

    @torch.no_grad()
    def _label_images(self, images: Sequence[ImageSource]) -> list[Labels]:
        """Computes the label maps of images, whose windows pass the network together."""
        views = []
        for source in images:
            pixels = read_image(source)
            views.append([
                ImageView(view.image.to(self.device), pixels.shape[:2], view.kept, view.flip)
                for view in self._prepare(pixels)])
        return [labels.cpu().numpy() for labels in self.label_maps(views)]

    def window_logits(self, windows: Tensor, metas: list, lockstep: bool = False) -> Tensor:
        """Computes the logits (B, K, h, w) of windows (B, 3, H, W), in float32."""
        if self._runtime is not None:
            return self._runtime(windows)
        return super().window_logits(windows, metas, lockstep)


def choose_device(device: str | torch.device | None) -> torch.device:
    """Returns the device to compute on.

    Raises:
        InputError: If it is unknown, or not there.
    """
    if device is None:
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device={device!r}: expected 'cpu', 'cuda' or e.g. 'cuda:1'") from error
    if chosen.type == 'cuda' and not torch.cuda.is_available():
        raise InputError(f'device={device!r}: PyTorch finds no GPU here; leave device out for the '
                         'CPU')
    if chosen.type == 'cuda' and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f'device={device!r}: PyTorch finds {torch.cuda.device_count()} GPUs here, '
                         "of which 'cuda:0' is the first")
    return chosen
