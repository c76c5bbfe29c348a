"""Labels images from any source with a config and a checkpoint, without a data set.

Letters: `H W` pixels, `K` classes.
"""
from dataclasses import replace

import numpy as np
from mmcv import Config
from mmseg.apis import inference_segmentor
from mmseg.datasets import DATASETS

from ..checkpoint.checkpoint import open_checkpoint
from ..checkpoint.recorded import NetworkName
from ..choices import UNTRAINED
from ..datasets.class_names import class_names
from ..datasets.image_arrays import as_colour
from ..datasets.nesting import innermost_options
from ..distributed.devices import use_gpu
from ..errors import InputError
from .test import load_model


class Predictor:
    """Labels images, one at a time, with the test pipeline of a config.

    Attributes:
        classes: Names of the K classes.
        palette: RGB colours (K, 3), 0..255.
        network: What the network is, in words.
        first_label: Number of the first class in label files: 1 where 0 means "other", as in
            ADE20K, else 0.

    Args:
        cfg: Config; the files of its data sets are not read.
        checkpoint: Checkpoint of a segmentor, or 'none' for the untrained network.
        device: 'cuda' or 'cpu'.
        backbone: Backbone file, for a checkpoint without the backbone.

    Raises:
        InputError: If the checkpoint or the config does not fit, or the GPU cannot be used.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str, backbone: str | None = None):
        if device == 'cuda':
            use_gpu()
        test = innermost_options(cfg.data.test)[0]
        classes, palette = _classes_of(test, cfg.model.decode_head)
        opened = None if checkpoint == UNTRAINED else open_checkpoint(checkpoint)
        model = load_model(cfg, opened, device, len(classes), backbone)
        meta = opened.meta if opened else {}
        self.classes = [name.strip() for name in meta.get('CLASSES', classes)]
        palette = meta.get('PALETTE', palette)
        known = palette is not None and len(palette) == len(self.classes)
        self.palette = np.asarray(palette) if known else _some_colours(len(self.classes))
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        name = replace(NetworkName.of(model), num_classes=None)
        self.network = f'{name}, {millions:,.3g} million parameters'
        self.first_label = int(_zero_is_other(cfg))
        model.cfg = Config(dict(data=dict(test=test)))  # mmseg builds the pipeline from it.
        self._model = model.to(device).eval()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Labels an image.

        Args:
            image: RGB uint8 (H, W, 3), or what :func:`..datasets.image_arrays.as_colour` takes.

        Returns:
            Classes (H, W), 0..K-1.
        """
        bgr = np.ascontiguousarray(as_colour(image)[..., ::-1])
        return inference_segmentor(self._model, bgr)[0]


def _classes_of(test: dict, head: dict) -> tuple[list[str], list | None]:
    """Returns names and colours of the classes of ``data.test``, without reading its files."""
    kind = DATASETS.get(test.get('type'))
    if kind is None:
        raise InputError(f'data.test.type={test.get("type")!r} of the config is not a registered '
                         'data set')
    classes, palette = test.get('classes'), test.get('palette') or getattr(kind, 'PALETTE', None)
    if isinstance(classes, (str, list, tuple)):
        classes = class_names(classes, kind.CLASSES, kind.__name__)
    if classes is not None and kind.CLASSES is not None and palette is kind.PALETTE:
        of_name = dict(zip(kind.CLASSES, palette or []))
        palette = [of_name[name] for name in classes if name in of_name]
    classes = classes or kind.CLASSES or [f'class {k}' for k in range(head['num_classes'])]
    return list(classes), palette


def _some_colours(count: int) -> np.ndarray:
    """Returns fixed random colours, for classes without a palette."""
    return np.random.default_rng(42).integers(0, 256, (count, 3))


def _zero_is_other(cfg: Config) -> bool:
    """Returns whether 0 in label files is no class: ``reduce_zero_label`` of the pipeline."""
    train = innermost_options(cfg.data.get('train') or {})[0]
    return any(step.get('reduce_zero_label') for step in train.get('pipeline', []))
