"""Batches of a feature cache for the segmentors of mmseg."""
import inspect

from torch import nn


def batch_for(segmentor: nn.Module, batch: dict) -> dict:
    """Renames ``feats`` to ``img`` in a training batch for a segmentor that knows no ``feats``.

    The forward of mmseg 0.30's segmentors insists on ``img``, and hands it to the backbone as it
    is; a backbone with frozen features takes them in the place of images. Can go with mmseg 0.30.
    """
    if 'feats' not in batch or 'feats' in inspect.signature(segmentor.forward).parameters:
        return batch
    return {'img' if name == 'feats' else name: value for name, value in batch.items()}
