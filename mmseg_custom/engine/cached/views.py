"""The crops that a cache is computed from, and its samples in training.

C channels, h w patch grid, H W pixels.
"""
from functools import lru_cache

import torch
from mmcv.parallel import DataContainer
from torch import Tensor
from torch.utils.data import Dataset

from ...datasets.nesting import sample_names
from ...errors import InputError
from ...feature_cache import FeatureCache
from ..randomness import SeededSamples
from ..sampler import epoch_order

KEPT = {'img', 'gt_semantic_seg'}


class AugmentedViews(Dataset):
    """Augmented crops of a data set, indexed by (view, image).

    A crop depends only on its index, the seed and the list of images. View v of an image is
    augmented like that image in the v-th pass of an uncached run with this seed. A cache with as
    many views as a run makes passes therefore changes nothing.

    Args:
        dataset: Training data with its pipeline.
        seed: Seed of the views.
        crop: Size (H, W) that every crop must have; None allows any.
    """

    def __init__(self, dataset: Dataset, seed: int, crop: tuple[int, int] | None = None):
        self.samples, self.seed, self.crop = SeededSamples(dataset, seed), seed, crop
        self.names = sample_names(dataset)

    def __len__(self) -> int:
        """Returns the number of images; the number of views has no limit."""
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Returns the crop (3, H, W) and its labels (H, W) in uint8.

        Raises:
            InputError: If the pipeline collects other keys, or a crop has another size or labels
                above 255.
        """
        view, image = key
        position = view * len(self) + int(_order_in_pass(len(self), self.seed, view)[image])
        sample = self.samples[position, image]
        if set(sample) - {'img_metas'} != KEPT:
            raise InputError(f'feature_cache: the training pipeline collects {sorted(sample)}: '
                             f'expected {sorted(KEPT)}, which a cache holds')
        crop, labels = sample['img'].data, sample['gt_semantic_seg'].data[0]
        size = tuple(labels.shape)
        if tuple(crop.shape[1:]) != size or self.crop not in (None, size):
            raise InputError(f'feature_cache: {self.names[image]} gives a crop of '
                             f'{tuple(crop.shape[1:])} pixels with labels of {size}: expected '
                             f'{self.crop or size}, like the first; end the training pipeline '
                             'with RandomCrop and Pad to one size')
        if labels.max() > 255:
            raise InputError(f'feature_cache: label {int(labels.max())} in {self.names[image]}: '
                             'expected 0..255, because a cache stores a byte per pixel')
        return crop, labels.to(torch.uint8)


class CachedViews(Dataset):
    """Samples of a cache, indexed like :class:`..randomness.SeededSamples`.

    Args:
        cache: Filled cache.
        views: Number of views of each image, which the passes over the data use in turn.
        dataset: Training data, for the names of the images.
    """

    def __init__(self, cache: FeatureCache, views: int, dataset: Dataset):
        self.cache, self.views, self.names = cache, views, sample_names(dataset)

    def __len__(self) -> int:
        return self.cache.layout.images

    def __getitem__(self, key: tuple[int, int]) -> dict:
        """Returns the sample that the pipeline would give, with ``feats`` instead of ``img``.

        Raises:
            InputError: If the shard is corrupt.
        """
        position, image = key
        features, labels = self.cache.read(image, position // len(self) % self.views)
        shape = (*labels.shape, 3)
        meta = dict(ori_filename=self.names[image], filename=self.names[image], img_shape=shape,
                    pad_shape=shape)
        return dict(feats=[DataContainer(x, stack=True) for x in features],
                    gt_semantic_seg=DataContainer(labels[None].long(), stack=True),
                    img_metas=DataContainer(meta, cpu_only=True))


@lru_cache(2)
def _order_in_pass(length: int, seed: int, epoch: int) -> Tensor:
    """Returns image -> its position in a pass over the data: (length,) int64."""
    return epoch_order(length, seed, epoch).argsort()
