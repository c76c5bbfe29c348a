"""The first samples of a training, loaded before the network is built and its weights are read."""
from mmcv import Config
from mmcv.parallel import DataContainer
from mmcv.runner import get_dist_info
from torch import Tensor

from ..errors import InputError
from ..models.backbone_options import backbone_option, traits_of
from .blame import reading
from .label_check import with_checked_labels
from .predict import check_keys
from .randomness import SeededSamples
from .run import Run
from .sampler import InfiniteSampler


def try_first_samples(run: Run, trained: bool = True) -> None:
    """Loads a sample of each split of a run that is not resumed, on rank 0.

    A pipeline that does not work, labels that the heads do not take, and images that are no
    multiple of the patch would else be found by the first iteration, after minutes of reading
    weights, or by the first evaluation. The generators keep their state.

    Args:
        run: The run.
        trained: Whether the samples of training go through their pipeline, and are not of a cache.

    Raises:
        InputError: If one of these is wrong.
    """
    rank, world_size = get_dist_info()
    if run.resumed or rank > 0:
        return
    if trained:
        samples = with_checked_labels(SeededSamples(run.data['train'], run.seed), run.cfg.model)
        first = next(iter(InfiniteSampler(len(run.data['train']), run.seed, rank, world_size)))
        with reading('data.train', 'fails on its first sample'):
            image = samples[first].get('img')
        image = image.data if isinstance(image, DataContainer) else image
        if isinstance(image, Tensor):
            _check_patches(run.cfg, *image.shape[-2:])
    if 'val' in run.data:
        with reading('data.val', 'fails on its first sample'):
            check_keys(SeededSamples(run.data['val'], run.seed)[0, 0])


def _check_patches(cfg: Config, height: int, width: int) -> None:
    backbone = cfg.model.backbone
    traits = traits_of(backbone)
    if not traits.is_ours:
        return
    side = traits.image_multiple or backbone_option(backbone, 'patch_size')
    cells = f'{side}-pixel ' + (
        'patch' if traits.image_multiple is None else f'cells of {backbone.type}')
    if height % side or width % side:
        raise InputError(
            f'the pipeline of data.train makes images of {height}x{width} pixels: expected '
            f'multiples of the {cells}; set its crop_size, and the size of Pad, to '
            f'e.g. {max(height // side, 1) * side}x{max(width // side, 1) * side}')
