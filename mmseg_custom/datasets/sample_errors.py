"""Why a sample cannot be loaded: its image, its label or a step of the pipeline is wrong."""
import os.path as osp
import traceback
from itertools import islice

from mmseg.datasets import CustomDataset
from mmseg.datasets.pipelines import Compose

from ..errors import InputError, comes_from_library, words_of
from .faults import check_decoding
from .listing import DISK
from .nesting import sample_paths
from .transforms import CheckLabels


def fault_of_file(dataset: CustomDataset, index: int) -> InputError | None:
    """Returns the error for a file that cannot be decoded; None if both can be.

    Args:
        dataset: Data set that holds no other.
        index: Index of the sample.
    """
    for what, path in zip(('image', 'label'), _paths_of(dataset, index)):
        # The pipeline of a test may not read the label.
        needed = _reads_from_disk(dataset) and (what == 'image' or not dataset.test_mode)
        if path is None or not (needed or osp.exists(path)):
            continue
        found = check_decoding(path, what == 'label')
        if found is not None:
            return InputError(f'{what} {path} {found}')
    return None


def fault_of_step(dataset: CustomDataset, index: int, error: Exception) -> InputError | None:
    """Returns the error for a step of the pipeline, or its place in it, that is what is wrong.

    Args:
        dataset: Data set that holds no other.
        index: Index of the sample.
        error: What the pipeline has raised; an OSError names its file itself.
    """
    step = _failed_step(error)
    # A KeyError means that an earlier step, which makes the key, is missing.
    if step is None or isinstance(error, OSError) or not (
            comes_from_library(error) or isinstance(error, KeyError)):
        return None
    return InputError(f'{step} of the pipeline fails on {_paths_of(dataset, index)[0]}: '
                      f'{words_of(error)}; correct data.*.pipeline')


def _paths_of(dataset: CustomDataset, index: int) -> tuple[str, str | None]:
    """Returns the paths of image and label of a sample."""
    return next(islice(sample_paths(dataset), index, None))


def _reads_from_disk(dataset: CustomDataset) -> bool:
    """Returns whether all steps read files of a disk, so that one that is missing has vanished."""
    return all(getattr(step, 'file_client_args', DISK) in ({}, DISK)
               for step in dataset.pipeline.transforms)


def _failed_step(error: Exception) -> str | None:
    """Returns the innermost step of a pipeline that an error comes from: 'step 3 (Resize)'."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        pipeline, step = frame.f_locals.get('self'), frame.f_locals.get('t')
        if isinstance(pipeline, Compose) and step in pipeline.transforms:
            shown = [each for each in pipeline.transforms if not isinstance(each, CheckLabels)]
            if step in shown:
                found = f'step {shown.index(step)} ({type(step).__name__})'
    return found
