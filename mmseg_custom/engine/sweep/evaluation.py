"""Predicts images with all heads of a sweep: the backbone computes each window once for all."""
from collections.abc import Sequence

import numpy as np
from torch import nn

from ...distributed.parallelize import unwrap
from ...models import InternViTSegmentor
from ...models.segmentors.image_views import views_of_batch
from ...models.segmentors.several_heads import SeveralHeads
from ..copies import HostCopy
from ..predict import predict_labels
from .backbone import SharedBackbone


class SharedPrediction:
    """Predicts labels with several heads, which are those of each head alone.

    Args:
        models: Wrapped segmentors of the heads, each with a :class:`.backbone.TrainedPart`.
        shared: Frozen backbone.
    """

    def __init__(self, models: Sequence[nn.Module], shared: SharedBackbone):
        self._models, self._shared = models, shared
        self._groups: list[tuple[list[int], SeveralHeads]] = []  # with the same windows
        own: list[tuple[list[int], list[InternViTSegmentor]]] = []
        for i, model in enumerate(map(unwrap, models)):
            if type(model) is not InternViTSegmentor:
                continue  # mmseg's own cuts windows in its own way
            group = next((one for one in own if one[1][0].test_cfg == model.test_cfg), None)
            if group is None:
                own.append(group := ([], []))
            group[0].append(i)
            group[1].append(model)
        for numbers, segmentors in own:
            self._groups.append((numbers, SeveralHeads(
                segmentors, shared.network.frozen_features,
                [model.backbone.positions for model in segmentors])))

    def __call__(self, images: list, metas: list[list[dict]]
                 ) -> list[list[HostCopy | np.ndarray]]:
        """Predicts the labels of images with each head: see :func:`..predict.predict_labels`."""
        found: dict[int, list] = {}
        for numbers, together in self._groups:
            of_images = together.label_maps(views_of_batch(images, metas))
            for number, of_head in zip(numbers, zip(*of_images)):
                found[number] = [HostCopy(own) for own in of_head]
        labels = [found[i] if i in found else predict_labels(model, images, metas)
                  for i, model in enumerate(self._models)]
        self._shared.clear()
        return labels
