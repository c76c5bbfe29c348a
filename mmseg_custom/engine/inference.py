"""Labels images from any source with a config and a checkpoint, without a data set.

Letters: `H W` pixels, `K` classes.
"""
from dataclasses import replace

import numpy as np
from mmcv import Config
from mmseg.apis import inference_segmentor

from ..checkpoint.checkpoint import open_checkpoint
from ..checkpoint.recorded import NetworkName
from ..choices import UNTRAINED
from ..datasets.image_arrays import as_colour
from ..datasets.nesting import innermost_options
from ..distributed.devices import use_gpu
from .class_facts import configured_classes, first_label, recorded_classes
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
        classes, palette = configured_classes(test, cfg.model.decode_head)
        opened = None if checkpoint == UNTRAINED else open_checkpoint(checkpoint)
        model = load_model(cfg, opened, device, len(classes), backbone)
        self.classes, self.palette = recorded_classes(
            opened.meta if opened else {}, classes, palette)
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        name = replace(NetworkName.of(model), num_classes=None)
        self.network = f'{name}, {millions:,.3g} million parameters'
        self.first_label = first_label(cfg)
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
