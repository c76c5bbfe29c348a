"""What a run is: its recipe, its data and the software that it runs on, in words."""
import hashlib
import os
import os.path as osp
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from mmcv import Config
from torch import nn
from torch.utils.data import Dataset

from ...checkpoint.provenance import known_sha256, weights_source_of
from ...datasets.nesting import few_shot_lists, innermost_datasets
from ...distributed.parallelize import engine_of, unwrap
from ...distributed.precision import training_dtype
from ...evaluation.run_info import versions
from ...layers.lora import LoraOptions
from ...missing import ROOT
from ...models.backbone_options import backbone_option, traits_of
from ...models.tuning import FROZEN, FULL, LAST_BLOCKS, tuning_of
from ...units import format_bytes
from ..build import compute_dtype, head_dtype
from ..config import kind_of
from ..frozen_dtype import describe_record
from ..run import Run
from ..tuning import shares_feature_maps

GIT_SECONDS = 5
Facts = dict[str, str]
_NAMES = dict(train='training', val='validation', val_loss='validation loss', test='test')


def recipe(run: Run, config_file: str) -> Facts:
    """Describes model, optimizer and schedule of a run.

    Args:
        run: The run.
        config_file: The resolved config in its work dir.
    """
    cfg = run.cfg
    found = {'Kind': kind_of_run(run), 'Config': cfg.filename or '',
             'SHA-256 of its copy here': _hash_of(config_file),
             'Varied': _settings(cfg.get('sweep') or {}, cfg.get('sweep') or {}),
             'Backbone': _module(cfg.model.get('backbone'), 'name', 'embed_dim', 'depth',
                                 'num_heads', 'img_size', 'patch_size', 'out_indices'),
             'Head': _module(cfg.model.get('decode_head'), 'num_classes', 'channels'),
             'Auxiliary head': _module(cfg.model.get('auxiliary_head'), 'channels'),
             'Optimizer': _module(cfg.get('optimizer'), 'lr', 'weight_decay', 'betas', 'momentum'),
             'Learning rate': _module(cfg.get('lr_config'), 'power', 'min_lr', 'warmup',
                                      'warmup_iters', key='policy'),
             'Batch': _batch(run),
             'Seed': str(run.seed) + (', and the number of the rank'
                                      if run.options.diff_seed else ''),
             'Weights from': _start_weights(run)}
    return {name: value for name, value in found.items() if value}


def kind_of_run(run: Run) -> str:
    """Names the kind of a training, as the recipes' folders do."""
    if run.cfg.get('sweep'):
        return ('sweep: many heads on one frozen backbone' if shares_feature_maps(run.cfg) else
                'sweep: runs one after another that train a part of the backbone')
    model, few = run.cfg.model, ''
    if chosen := few_shot_lists(run.data['train']):
        few = f', few-shot ({chosen[0].fraction or "a selection of images"})'
    backbone = dict(model.get('backbone', {}))
    traits = traits_of(backbone)
    if traits.changes_tokens:
        head = kind_of(model) if isinstance(model.decode_head, dict) else 'several heads'
        return (f'ViT-Adapter: the vision transformer is frozen, the adapter and the {head} head '
                f'are trained{few}')
    if not traits.is_tunable:  # whose options have these names, and maybe others
        backbone = {'freeze_vit': backbone_option(backbone, 'freeze_vit')} if (
            traits.has_frozen_features or 'freeze_vit' in backbone) else {}
    if 'decode_head' not in model or {'freeze_vit', 'adapt', 'train_last'}.isdisjoint(backbone):
        return f'training{few}'
    head = kind_of(model) if isinstance(model.decode_head, dict) else 'several heads'
    kind = _kind_of_tuning(backbone, head)
    if backbone.get('unfreeze_pos_embed') and tuning_of(backbone) != FULL:
        kind += ', and so is the position embedding'
    return f'{kind}{few}'


def _kind_of_tuning(backbone: Mapping, head: str) -> str:
    """Says what of a backbone of this package, and which head, are trained."""
    kind = tuning_of(backbone)
    if kind == FULL:
        return f'full tuning: backbone and {head} head are trained'
    if kind == FROZEN:
        name = 'linear probing' if head == 'linear' else 'head tuning'
        return f'{name}: the backbone is frozen, the {head} head is trained'
    if kind == LAST_BLOCKS:
        count, norms = backbone['train_last'], backbone.get('train_norms')
        parts = [*([f'the last {count} block{"s" * (count > 1)}'] if count else []),
                 *(['all norms and layer scales'] if norms else []), f'the {head} head']
        return f'last blocks: {", ".join(parts[:-1])} and {parts[-1]} are trained'
    adapt = {**vars(LoraOptions()), 'blocks': 'all', **backbone['adapt']}
    blocks = adapt['blocks']
    where = 'all blocks' if blocks == 'all' else f'blocks {", ".join(map(str, sorted(blocks)))}'
    return (f'{"DoRA" if adapt["use_dora"] else "LoRA"}: adapters of rank {adapt["r"]} of '
            f'{", ".join(adapt["targets"])} in {where}, and the {head} head are trained')


def network(run: Run, model: nn.Module) -> Facts:
    """Describes a segmentor that is built: engine, precision, parameters that are trained."""
    segmentor = unwrap(model)
    counts = {name: (sum(p.numel() for p in part.parameters() if p.requires_grad),
                     sum(p.numel() for p in part.parameters()))
              for name, part in segmentor.named_children()}
    trained, total = (sum(count[i] for count in counts.values()) for i in (0, 1))
    parts = ', '.join(f'{name} {count[0]:,}' for name, count in counts.items() if count[0])
    of_heads = head_dtype(run.cfg, segmentor)
    dtype = training_dtype(compute_dtype(run.cfg, segmentor), getattr(segmentor, 'backbone', None))
    return {'Engine': f'{engine_of(run.engine, segmentor)[0]}: {run.batch.ranks} process(es) on '
                      + ('GPUs' if run.device == 'cuda' else 'the CPU'),
            **({} if dtype is None else {
                'Precision': f'the backbone computes in {_name_of(dtype)}' + (
                    '' if of_heads == torch.float32
                    else f', convolutions of the heads in {_name_of(of_heads)}')}),
            **({'Frozen weights': describe_record(rounded)} if (rounded := getattr(
                getattr(segmentor, 'backbone', None), 'frozen_record', None)) else {}),
            'Trained parameters': f'{trained:,} of {total:,} ({parts})'}


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


def weights_of(model: nn.Module) -> Facts:
    """Names the file of a backbone's weights, with its hash once that is known."""
    backbone = getattr(unwrap(model), 'backbone', None)
    source = weights_source_of(backbone)
    if backbone is None or source is None:
        return {}
    digest = known_sha256(source.path)
    frozen = any(not p.requires_grad for p in backbone.parameters())
    return {'Backbone weights from': source.path + (f' (SHA-256 {digest})' if digest else '') + (
        '; checkpoints refer to it and hold no copy of what is frozen' if frozen else '')}


def data(run: Run) -> Facts:
    """Describes the data sets of a run."""
    found = {}
    for split, dataset in run.data.items():
        found[f'{_NAMES.get(split, split)} data'.capitalize()] = _dataset(dataset)
        for chosen in few_shot_lists(dataset):
            found[f'Images of the {_NAMES.get(split, split)} data'] = str(chosen)
    return found


def software() -> Facts:
    """Lists versions, and the commit of the checkout that the package is run from."""
    found = versions()
    names = dict(mmcv='mmcv', mmsegmentation='mmsegmentation', torch='PyTorch', cuda='CUDA',
                 python='Python', numpy='numpy', opencv='OpenCV')
    listed = {'InternViT-Seg': found['mmseg_custom'] + (f', {commit}' if (commit := git_commit())
                                                         else '')}
    return {**listed, **{names[key]: found[key] for key in names if key in found}}


def git_commit() -> str:
    """Returns the commit of the checkout, and whether files differ from it; else nothing."""
    if not osp.exists(osp.join(ROOT, '.git')):
        return ''
    with suppress(OSError, subprocess.SubprocessError):
        commit = _git('rev-parse', 'HEAD').stdout.strip()
        changed = _git('diff', '--quiet', 'HEAD').returncode == 1
        return f'commit {commit}' + (' with changes of its files' if changed else '') if commit \
            else ''
    return ''


def _git(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(['git', '-C', ROOT, *words], capture_output=True, text=True,
                          timeout=GIT_SECONDS, env={**os.environ, 'GIT_OPTIONAL_LOCKS': '0'})


def _dataset(dataset: Dataset) -> str:
    parts = innermost_datasets(dataset)
    described = []
    for part in parts:
        classes = getattr(part, 'CLASSES', None)
        folder = getattr(part, 'img_dir', None)
        described.append(f'{type(part).__name__}: {len(part):,} images'
                         + (f' of {len(classes)} classes' if classes else '')
                         + (f' in {folder}' if folder else ''))
    repeated = len(dataset) - sum(len(part) for part in parts)
    return '; '.join(described) + (f'; {len(dataset):,} samples in all' if repeated else '')


def _batch(run: Run) -> str:
    batch = run.batch
    return (f'{batch.images} images a step = {batch.samples} a process x {batch.ranks} process(es) '
            f'x {batch.accumulation} accumulated')


def _start_weights(run: Run) -> str:
    checkpoint = run.checkpoint
    if checkpoint is None:
        pretrained = backbone_option(run.cfg.model.get('backbone') or {}, 'pretrained') or (
            run.cfg.model.get('pretrained'))
        return str(pretrained or 'none: random values')
    size = '' if osp.isdir(checkpoint.path) or not osp.exists(checkpoint.path) else (
        f' ({format_bytes(osp.getsize(checkpoint.path))})')
    verb = 'resumed from ' if run.resumed else ''
    return f'{verb}{checkpoint.path}{size}'


def _module(options: Any, *keys: str, key: str = 'type') -> str:
    """Describes a part of a config by its type and some of its settings."""
    if isinstance(options, (list, tuple)):
        return '; '.join(_module(part, *keys, key=key) for part in options)
    if not isinstance(options, Mapping):
        return ''
    settings = _settings(options, keys)
    return f'{options.get(key)}' + (f' ({settings})' if settings else '')


def _settings(options: Mapping, keys: Iterable[str]) -> str:
    return ', '.join(f'{name}={_short(options[name])}' for name in keys
                     if options.get(name) is not None)


def _short(value: Any) -> str:
    return f'{value:g}' if isinstance(value, float) else str(value)


def _hash_of(path: str) -> str:
    with suppress(OSError), open(path, 'rb') as file:
        return hashlib.sha256(file.read()).hexdigest()
    return ''


def config_name(cfg: Config) -> str:
    """Returns the name of a config's file without its ending."""
    return osp.splitext(osp.basename(cfg.filename or 'config.py'))[0]
