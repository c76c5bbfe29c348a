"""Images of one's own -> labels, with a config and a checkpoint and without a data set.

Letters: `H W` pixels, `K` classes.
"""
from types import SimpleNamespace

import mmcv
import numpy as np
from mmcv import Config
from mmseg.apis import inference_segmentor
from mmseg.datasets import DATASETS

from ..errors import InputError
from .test import load_model


class Predictor:
    """Labels images, one at a time, with the test pipeline of a config.

    Attributes:
        classes: K names.
        palette: RGB (K, 3), 0..255.
        first_label: The number of the first class in label files: 1 where 0 means "other", as in
            ADE20K, else 0.

    Args:
        cfg: A config; of its data only names are read, no file.
        checkpoint: A segmentor's checkpoint, or 'none' for the untrained network.
        device: 'cuda' or 'cpu'.
        backbone: The backbone's file for a checkpoint without it.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str, backbone: str | None = None):
        test = cfg.data.test[0] if isinstance(cfg.data.test, (list, tuple)) else cfg.data.test
        names, colours = _classes_of(test, cfg.model.decode_head)
        names_only = type(test.type, (SimpleNamespace,), {})(CLASSES=names, PALETTE=colours)
        model = load_model(cfg, checkpoint, names_only, device, backbone)
        self.classes = [name.strip() for name in model.CLASSES]
        known = model.PALETTE is not None and len(model.PALETTE) == len(self.classes)
        self.palette = np.asarray(model.PALETTE) if known else _some_colours(len(self.classes))
        self.first_label = int(_zero_is_other(cfg))
        # mmseg's inference_segmentor builds its pipeline from model.cfg.data.test.pipeline.
        model.cfg = SimpleNamespace(data=SimpleNamespace(test=test))
        self._model = model.to(device).eval()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Labels an image.

        Args:
            image: RGB uint8 (H, W, 3).

        Returns:
            Classes (H, W), 0..K-1.
        """
        return inference_segmentor(self._model, np.ascontiguousarray(image[..., ::-1]))[0]


def _classes_of(test: dict, head: dict) -> tuple[list[str], list | None]:
    """Names and colours of the classes in ``data.test``, without its files."""
    kind = DATASETS.get(test.get('type'))
    if kind is None:
        raise InputError(f'data.test.type={test.get("type")!r} of the config is no data set that '
                         'is registered')
    classes, palette = test.get('classes'), test.get('palette') or getattr(kind, 'PALETTE', None)
    if isinstance(classes, str):
        classes = mmcv.list_from_file(classes)
    if classes is not None and kind.CLASSES is not None and palette is kind.PALETTE:
        of_name = dict(zip(kind.CLASSES, palette or []))
        palette = [of_name[name] for name in classes if name in of_name]
    classes = classes or kind.CLASSES or [f'class {k}' for k in range(head.num_classes)]
    return list(classes), palette


def _some_colours(count: int) -> np.ndarray:
    """Colours for classes that have none, always the same."""
    return np.random.default_rng(42).integers(0, 256, (count, 3))


def _zero_is_other(cfg: Config) -> bool:
    """Whether label files keep 0 for what is no class: the training pipeline says so."""
    train = cfg.data.get('train') or {}
    while isinstance(train, (list, tuple)) or 'dataset' in train:
        train = train[0] if isinstance(train, (list, tuple)) else train['dataset']
    return any(step.get('reduce_zero_label') for step in train.get('pipeline', []))
