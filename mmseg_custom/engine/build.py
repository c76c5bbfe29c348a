"""Builds the segmentor of a run: in its dtypes, with its weights, on its device."""
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from mmcv import Config
from mmcv.runner import get_dist_info
from mmseg.models import build_head, build_segmentor
from mmseg.utils import get_root_logger
from torch import nn

from ..checkpoint import load_segmentor, load_shards, sha256_in_background
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.load import Mismatch
from ..checkpoint.provenance import weights_source_of
from ..distributed.launch import is_first_of_node
from ..distributed.options import Engine
from ..distributed.parallelize import choose_engine, parallelize, unwrap
from ..distributed.precision import (
    COMPUTE_DTYPES,
    HEAD_DTYPES,
    apply_precision,
    can_cast,
    heads,
    training_dtype,
)
from ..distributed.topology import find_topology, is_unresolved, resolve_topology
from ..errors import SHOWN, InputError
from ..layers.lora import is_adapter
from ..logs import saying
from ..models.backbone_options import backbone_option, traits_of
from ..models.segmentors.encoder_decoder import InternViTSegmentor
from ..optim import low_memory
from .blame import reading
from .determinism import settle_determinism
from .frozen_dtype import measure_frozen_dtype
from .hooks import ToBFloat16Hook, ToFloat16Hook
from .run import Run


def build_network(cfg: Config, *, pretrained: bool = False, on_meta: bool = False,
                  trained: bool = True, adapters: bool = False) -> nn.Module:
    """Builds the segmentor of a config.

    Args:
        cfg: Config; it is not changed.
        pretrained: Whether to load the pretrained file.
        on_meta: Whether to build on the meta device, without memory, until a checkpoint provides
            the weights. This holds for backbones of this package; others may compute buffers when
            they are built.
        trained: Whether to build with ``train_cfg``.
        adapters: Whether adapters start from the folder of the config, if it names one.

    Raises:
        InputError: If the config has no backbone, or a part of it cannot be built.
    """
    options = copy.deepcopy(cfg.model)
    if 'backbone' not in options:
        raise InputError('model.backbone is missing from the config')
    if not pretrained:
        # Some of mmseg's backbones know no such option, and a folder's weights need none.
        for part, option in ((options, options.get('pretrained')), (
                options.backbone, backbone_option(options.backbone, 'pretrained'))):
            if option is not None:
                part.pretrained = None
    traits = traits_of(options.backbone)
    if traits.is_tunable and not adapters and isinstance(options.backbone.get('adapt'), dict):
        options.backbone['adapt'].pop('pretrained', None)
    if not trained:
        options.train_cfg = None
    on_meta = on_meta and traits.is_ours
    with reading('model'), torch.device('meta') if on_meta else nullcontext():
        return build_segmentor(options, train_cfg=cfg.get('train_cfg') if trained else None,
                               test_cfg=cfg.get('test_cfg'))


def build_model(run: Run, before_wrapping: Callable[[nn.Module], object] | None = None
                ) -> nn.Module:
    """Builds the segmentor of a training run with its weights, and wraps it.

    If it is sharded, no process holds all weights in float32 at any time: weights in files are
    memory-mapped, shared by the processes of a node, and converted to float32 block by block; from
    a sharded checkpoint, each process reads its shards.

    Args:
        run: The run.
        before_wrapping: Function that is called with the segmentor when its weights are loaded,
            before it moves to its device.

    Returns:
        The wrapped segmentor.
    """
    with saying(f'building the network{_with_weights(run.cfg, run.checkpoint)}'):
        return _build_model(run, before_wrapping)


def _with_weights(cfg: Config, checkpoint: Checkpoint | None) -> str:
    """Returns the file of its weights, for the log."""
    path = checkpoint.path if checkpoint else backbone_option(
        cfg.model.get('backbone') or {}, 'pretrained')
    return f' with the weights of {path}' if path else ''


def _build_model(run: Run, before_wrapping: Callable[[nn.Module], object] | None) -> nn.Module:
    """See :func:`build_model`."""
    cfg, checkpoint = run.cfg, run.checkpoint
    anew = () if run.resumed else cfg.get('load_from_without') or ()
    complete = checkpoint is not None and checkpoint.holds_backbone and not any(
        part.split('.')[0] == 'backbone' for part in anew)
    new_adapters = checkpoint is None or not any(map(is_adapter, checkpoint.weights))
    model = build_network(cfg, pretrained=not complete, on_meta=complete, adapters=new_adapters)
    if anew and complete:
        build_heads(model, cfg)
    if anew or not complete:
        init_heads(model)
    kind = choose_engine(run.engine, model)
    sharded = kind == 'fsdp2'
    asked = compute_dtype(cfg, model)
    dtype = training_dtype(asked, model.backbone)
    if dtype != asked:
        get_root_logger().info('precision: the config asks for float16; the adapter is trained in '
                               'bfloat16, since gradients are not scaled here')
    engine = run.engine
    if sharded and is_unresolved(engine):
        engine = resolve_topology(engine, model, find_topology(run.device),
                                  dtype or torch.float32, cfg.optimizer)
    apply_precision(model, dtype, run.device, store=not sharded, master_dtype=master_dtype(cfg),
                    head_dtype=head_dtype(cfg, model))
    by_shards = (checkpoint is not None and sharded and complete and checkpoint.is_sharded
                 and not anew and not (new_adapters and cfg.model.backbone.get('adapt')))
    if checkpoint is not None and not by_shards:
        with explained_parts(checkpoint, run.resumed, anew):
            load_segmentor(model, checkpoint, verify=is_first_of_node(), as_stored=sharded,
                           leave_out=anew)
    if run.options.check_finite and not by_shards:
        check_finite(model)
    measure_frozen_dtype(run, model.backbone)
    if before_wrapping is not None:
        before_wrapping(model)
    settle_determinism(model)
    model = parallelize(model, run.device, engine, cfg.get('find_unused_parameters', False),
                        kind, master_dtype(cfg))
    if checkpoint is not None and by_shards:
        with explained_parts(checkpoint, run.resumed):
            load_shards(unwrap(model), checkpoint, check_finite=run.options.check_finite)
    return model


@contextmanager
def explained_parts(checkpoint: Checkpoint, resumed: bool = False,
                    anew: Sequence[str] = ()) -> Iterator[None]:
    """Offers to leave out the heads in which a checkpoint does not fit the network.

    Args:
        checkpoint: Opened checkpoint.
        resumed: Whether the run is resumed from it.
        anew: Parts that are left out already.

    Raises:
        InputError: In the place of one that names such heads.
    """
    try:
        yield
    except Mismatch as error:
        if resumed or any(part.split('.')[0] == 'backbone' for part in error.parts):
            raise
        parts = [*anew, *_few(error.parts)]
        raise InputError(f'{error}: to start these parts anew, give --load-from-without '
                         f'{" ".join(parts)}, or load_from_without={parts} in the '
                         'config') from error


def _few(parts: Sequence[str]) -> list[str]:
    """Returns whole heads in the place of more than a few layers of one."""
    heads = [part.split('.')[0] for part in parts]
    return list(dict.fromkeys(head if heads.count(head) > SHOWN else part
                              for head, part in zip(heads, parts)))


def build_heads(model: nn.Module, cfg: Config) -> None:
    """Builds the heads of a segmentor on the meta device again, with values of their own."""
    for name in ('decode_head', 'auxiliary_head'):
        options = copy.deepcopy(cfg.model.get(name))
        if isinstance(options, list):
            setattr(model, name, nn.ModuleList(build_head(part) for part in options))
        elif options is not None:
            setattr(model, name, build_head(options))
    if isinstance(model, InternViTSegmentor):
        model.join_backbone()


def init_heads(model: nn.Module) -> None:
    """Initialises the heads of a segmentor, and its backbone if it is not of this package."""
    for name, child in model.named_children():
        # mmcv would first compute the mean of every parameter for its log, 5.9 billion values.
        if name == 'backbone' and hasattr(child, 'freeze_vit'):
            continue
        for part in child if isinstance(child, nn.ModuleList) else [child]:  # several heads
            if hasattr(part, 'init_weights'):
                with reading(f'model.{name}.init_cfg'):
                    part.init_weights()


def compute_dtype(cfg: Config, model: nn.Module) -> torch.dtype | None:
    """Returns the dtype that the backbone computes in; None if it has no precision policy.

    ``precision='bf16' | 'fp16' | 'fp32'`` in the config decides, else the precision hook among
    ``custom_hooks``, else the dtype that the backbone was built in.

    Raises:
        InputError: If ``precision`` is none of the three.
    """
    name = cfg.get('precision')
    if name is not None:
        if name not in COMPUTE_DTYPES:
            raise InputError(f'precision={name!r}: expected one of {", ".join(COMPUTE_DTYPES)}')
        return COMPUTE_DTYPES[name]
    hooks = cfg.get('custom_hooks')  # not checked where a config is only tested
    for hook in (ToBFloat16Hook, ToFloat16Hook):
        if isinstance(hooks, (list, tuple)) and any(
                isinstance(each, dict) and each.get('type') == hook.__name__ for each in hooks):
            return hook.dtype
    return getattr(model.backbone, 'dtype', None)


def head_dtype(cfg: Config, model: nn.Module) -> torch.dtype:
    """Returns the dtype that convolutions of heads compute in.

    ``head_precision='fp32' | 'bf16'`` in the config decides. Without it they compute in float32, or
    with ``engine.fast`` as the backbone does if that is bfloat16 and all heads can.

    Raises:
        InputError: If ``head_precision`` is neither of the two.
    """
    name = cfg.get('head_precision')
    if name is None:
        fast = (Engine.of_test(cfg.get('engine')).fast and all(map(can_cast, heads(model)))
                and compute_dtype(cfg, model) == torch.bfloat16)
        return torch.bfloat16 if fast else torch.float32
    if name not in HEAD_DTYPES:
        raise InputError(f'head_precision={name!r}: expected one of {", ".join(HEAD_DTYPES)}')
    return HEAD_DTYPES[name]


def master_dtype(cfg: Config) -> torch.dtype:
    """Returns the dtype of the backbone's master weights.

    It is float32 for all optimizers except the low-memory one.

    Raises:
        InputError: If the low-memory optimizer is combined with a precision other than bfloat16.
    """
    if (cfg.get('optimizer') or {}).get('type') != low_memory.NAME:
        return torch.float32
    if cfg.get('precision', 'bf16') != 'bf16':
        raise InputError(f'precision={cfg.precision!r} and optimizer.type={low_memory.NAME!r}, '
                         'which trains bfloat16 weights: leave one of them out')
    return torch.bfloat16


def check_finite(model: nn.Module) -> None:
    """Checks that all weights are finite.

    Raises:
        InputError: If a weight holds NaN or infinity; the message names it.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f'--check-finite: {name} holds NaN or infinity: the file it comes '
                             'from is damaged, or its training diverged')


def hash_ahead(backbone: nn.Module) -> None:
    """Starts hashing the file of a frozen backbone, so the first checkpoint does not wait."""
    source = weights_source_of(backbone)
    frozen = any(not p.requires_grad for p in backbone.parameters())
    if source is not None and frozen and get_dist_info()[0] == 0:
        sha256_in_background(source.path)
