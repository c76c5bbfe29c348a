"""What is run, in the first lines of its log: recipe, data, network, where the results go."""
import os.path as osp
from collections.abc import Iterator

import torch
from torch import nn

from .run import Run


def describe_start(config: str, work_dir: str, device: str, log: str | None) -> Iterator[str]:
    """Yields lines about a command.

    Args:
        config: Path of the config file.
        work_dir: Folder of the results.
        device: Device that the run computes on, 'cuda' or 'cpu'.
        log: Path of the log file, if there is one.
    """
    card = f' ({torch.cuda.get_device_name()})' if device == 'cuda' else ''
    yield f'recipe: {config}, on {device}{card}'
    yield f'work dir: {work_dir}' + (f'; details are in {osp.basename(log)} there' if log else '')


def describe_run(run: Run) -> Iterator[str]:
    """Yields lines about a prepared run."""
    uses = dict(train='to train on', val='to evaluate', test='to test')
    counts = [f'{len(data)} images {uses[split]}' for split, data in run.data.items()
              if split in uses]
    if run.data:
        classes = next(iter(run.data.values())).CLASSES
        yield f'data: {", ".join(counts)}; {len(classes)} classes'
    if run.checkpoint is not None:
        yield f'{"resumed from" if run.resumed else "weights of"} {run.checkpoint.path}'
    if 'train' in run.data:
        yield f'seed: {run.seed}'


def describe_network(model: nn.Module) -> str:
    """Describes a segmentor by the names of its parts."""
    parts = [model.backbone] if hasattr(model, 'backbone') else []
    for name in ('neck', 'decode_head', 'auxiliary_head'):
        part = getattr(model, name, None)
        parts += part if isinstance(part, nn.ModuleList) else [part] if part is not None else []
    name, *names = (type(part).__name__.removeprefix('FSDP') for part in (model, *parts))
    return f'network: {name} of {", ".join(names)}'
