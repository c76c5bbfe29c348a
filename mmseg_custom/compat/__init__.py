"""What OpenMMLab 1.x needs on today's PyTorch. Each piece says why, and when it can go."""
import importlib
import importlib.util
import os
import sys
from functools import cache, wraps
from types import SimpleNamespace

import torch

from .late_imports import import_inference, import_runner

import_runner()  # before anything else imports mmcv

from ..distributed.collectives import gather_to_rank0  # noqa: E402
from ..errors import InputError  # noqa: E402
from . import mmcv_without_ops  # noqa: E402

MATRIX_TOOL = 'confusion_matrix.py'
NPU_FUNCTION = '_check_balance'
LONGEST_SIDE = 16000  # pixels of a figure


def stand_in_for_mmcv_ops() -> None:
    """Lets mmseg import where mmcv-full was built without its compiled ops.

    mmseg 0.30 imports ``mmcv.ops`` for a focal loss that nothing here uses, and compiling the ops
    takes a quarter of an hour. Steps aside when they are there; where this package is installed,
    they or their stand-in are found in any case (:mod:`.mmcv_without_ops`), so that this is for
    copies on the PYTHONPATH, and for ops of another PyTorch. Can go with mmseg 0.30.
    """
    try:
        importlib.import_module(mmcv_without_ops.NAME)
    except ImportError:
        spec = mmcv_without_ops.StandInFinder.find_spec(mmcv_without_ops.NAME)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[mmcv_without_ops.NAME] = module
    import_inference()


def look_for_mmcv_ops() -> None:
    """Lets mmcv build optimizers with ``paramwise_cfg`` on Python 3.14.

    It asks ``pkgutil.find_loader`` whether its ops are compiled, which Python 3.14 removed. Can go
    with mmcv 1.x.
    """
    import mmcv.utils.ext_loader as ext_loader
    if not hasattr(ext_loader.pkgutil, 'find_loader'):
        ext_loader.pkgutil = SimpleNamespace(find_loader=importlib.util.find_spec)


def clear_torch_ops() -> None:
    """Lets torch.export, ONNX and torchao list the operators of PyTorch before 2.7.

    mmcv 1.7 replaces a function, for NPUs, in all modules that have one of its name. ``torch.ops``
    seems to have any, and takes the name for a namespace of operators. Can go with mmcv 1.x.
    """
    vars(torch.ops).pop(NPU_FUNCTION, None)
    torch.ops._dir[:] = [name for name in torch.ops._dir if name != NPU_FUNCTION]


def copy_batches_on_streams() -> None:
    """Lets mmcv copy batches onto a GPU.

    mmcv 1.7 asks torch for its background stream by the number of the device; since torch 2.1 that
    function wants a ``torch.device``. Can go with mmcv 1.x.
    """
    import mmcv.parallel._functions as mmcv_scatter
    mmcv_scatter._get_stream = _copy_stream


@cache
def _copy_stream(device: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def stay_without_gpu() -> None:
    """Lets mmseg's get_flops run where there is no GPU.

    It calls ``.cuda()`` on the segmentor whatever the machine has; without a GPU that now leaves
    the model where it is. Can go with mmseg 0.30.
    """
    from mmseg.models.segmentors.base import BaseSegmentor

    def cuda(self: BaseSegmentor, device: int | None = None) -> BaseSegmentor:
        return super(BaseSegmentor, self).cuda(device) if torch.cuda.is_available() else self

    BaseSegmentor.cuda = cuda


def leave_losses_on_device() -> None:
    """Lets the segmentors of mmseg train without waiting for the GPU; others are not touched.

    mmseg 0.30 reads every loss before the backward pass, and reduces each over the ranks. With
    ``train_step(..., defer_log=True)`` the ``log_vars`` are tensors of this rank, for
    :class:`..engine.log_buffer.DeferredLogBuffer`, except of segmentors that add up their losses in
    their own way. Can go with mmseg 0.30.
    """
    from mmseg.models.segmentors.base import BaseSegmentor
    read_losses = BaseSegmentor.train_step

    @wraps(read_losses)
    def train_step(self: BaseSegmentor, data_batch: dict, optimizer: object = None,
                   defer_log: bool = False, **kwargs) -> dict:
        if not defer_log or type(self)._parse_losses is not BaseSegmentor._parse_losses:
            return read_losses(self, data_batch, optimizer, **kwargs)
        values = {name: sum(part.mean() for part in value) if isinstance(value, list)
                  else value.mean() for name, value in self(**data_batch).items()}
        if not any('loss' in name for name in values):
            raise InputError('nothing is trained: no loss has a name with "loss" in it; set '
                             'loss_name of a loss_decode, e.g. loss_ce')
        values['loss'] = sum(value for name, value in values.items() if 'loss' in name)
        return dict(loss=values['loss'], num_samples=len(data_batch['img_metas']),
                    log_vars={name: value.detach() for name, value in values.items()})

    BaseSegmentor.train_step = train_step


def draw_large_matrices() -> None:
    """Lets mmseg's tool confusion_matrix.py draw 150 classes; nothing else is touched.

    It takes two inches a class at 180 dots an inch: 54000 x 43200 pixels, for which 24 GB of memory
    are not enough. Figures of more than ``LONGEST_SIDE`` pixels get fewer dots an inch instead. Can
    go with mmseg 0.30.
    """
    if os.path.basename(getattr(sys.modules['__main__'], '__file__', None) or '') != MATRIX_TOOL:
        return
    from matplotlib import pyplot  # which takes half a second to import
    subplots = pyplot.subplots

    @wraps(subplots)
    def subplots_within_limits(*args, **kwargs):
        longest = max(kwargs.get('figsize') or (0,))  # inches
        if longest * (kwargs.get('dpi') or 0) > LONGEST_SIDE:
            kwargs['dpi'] = LONGEST_SIDE / longest
        return subplots(*args, **kwargs)

    pyplot.subplots = subplots_within_limits


def collect_on_any_device() -> None:
    """Gathers test results through torch.distributed.

    mmcv 1.7 agrees on a temporary folder with CUDA tensors, on the CPU too, and passes the results
    through a file system that all nodes must share. Can go with mmseg 0.30.
    """
    import mmseg.apis.test as mmseg_test
    mmseg_test.collect_results_cpu = collect_results
    mmseg_test.collect_results_gpu = collect_results


def collect_results(part: list, size: int, tmpdir: str | None = None) -> list | None:
    """Gathers the results of all ranks in the order of the data set.

    Args:
        part: Results of this rank: of the images rank, rank + ranks, ...
        size: Images in the data set; results of padding beyond it are cut off.
        tmpdir: Folder that mmseg passes; not needed.

    Returns:
        The list of ``size`` results on rank 0, None on the others.
    """
    parts = gather_to_rank0(part)
    if parts is None:
        return None
    return [result for row in zip(*parts) for result in row][:size]
