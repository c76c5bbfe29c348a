"""One pass over the images evaluates all heads of a round."""
import sys
from collections.abc import Sequence

import torch
import torch.distributed as dist
from mmcv.runner import get_dist_info
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader
from tqdm import tqdm

from ...compat import collect_results
from .backbone import SharedBackbone
from .probe import Probe


def evaluate(probes: Sequence[Probe], shared: SharedBackbone) -> None:
    """Evaluates heads, and logs and saves what each of them would in a run of its own."""
    loader = probes[0].evaluation.dataloader
    options = probes[0].evaluation
    for probe in probes:
        _same_statistics(probe.model)
        probe.model.eval()
    results = _predict([probe.model for probe in probes], loader, shared, options.pre_eval)
    for probe, own in zip(probes, results):
        probe.evaluation.take(probe.runner, own)


def _predict(models: Sequence[nn.Module], loader: DataLoader, shared: SharedBackbone,
             pre_eval: bool) -> list[list | None]:
    """Each model's results in the order of the data set, on rank 0; windows are shared."""
    rank, _ = get_dist_info()
    results = [[] for _ in models]
    bar = tqdm(total=len(loader), unit='image', disable=rank > 0,
               desc=f'evaluation of {len(models)} head(s)',
               mininterval=1 if sys.stderr.isatty() else 30)
    with bar, torch.no_grad():
        for indices, data in zip(loader.batch_sampler, loader):
            for model, own in zip(models, results):
                labels = model(return_loss=False, rescale=True, **data)
                own += loader.dataset.pre_eval(labels, indices=indices) if pre_eval else labels
            shared.forget()
            bar.update()
    if get_dist_info()[1] == 1:
        return results
    return [collect_results(own, len(loader.dataset)) for own in results]


def _same_statistics(model: nn.Module) -> None:
    """Batch norms that are not SyncBN get rank 0's, as mmseg's evaluation has it."""
    if get_dist_info()[1] == 1:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            dist.broadcast(module.running_var, 0)
            dist.broadcast(module.running_mean, 0)
