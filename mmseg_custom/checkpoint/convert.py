"""Any form of InternViT's weights -> another: .pth, safetensors, Hugging Face folder."""
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from ..choices import SHARD_BYTES, WEIGHT_FORMS
from ..errors import InputError
from ..files import atomic_folder, atomic_write
from ..progress import progress_bar
from ..schema import integer, load_json, nullable, record, validate
from ..targets import try_target
from .backbone_file import open_backbone_weights
from .export import write_pth, write_safetensors, write_shards
from .integrity import finish_checks
from .keys import NATIVE, PYRAMID, TRANSFORMERS, Architecture, describe_mismatch, natural_key
from .lazy import LazyStateDict, LazyTensor
from .load import check_float, refuse_nonfinite

HEADS_OF_WIDTH = {3200: 25, 1024: 16}  # InternViT-6B and InternViT-300M


def form_of(path: str) -> str:
    """Returns the form that a name asks for: .pth, .safetensors, and no ending for a folder.

    Raises:
        InputError: If the name has any other ending.
    """
    ending = os.path.splitext(path.rstrip('/'))[1]
    forms = {'.pth': 'pth', '.pt': 'pth', '.bin': 'pth', '.safetensors': 'safetensors', '': 'hf'}
    if os.path.isdir(path):
        return 'hf'
    if ending not in forms:
        raise InputError(f'{path}: what form {ending!r} is to be is unknown: end the name in .pth '
                         f'or .safetensors, or say --to {"|".join(WEIGHT_FORMS)}')
    return forms[ending]


def convert(source: str, target: str, form: str, *, dtype: torch.dtype | None = None,
            num_heads: int | None = None, shard_bytes: int = SHARD_BYTES,
            check_finite: bool = False, show_progress: bool = False) -> None:
    """Converts weights, in the memory of about one tensor.

    Args:
        source: File or folder of any form.
        target: File or folder to write; must not exist.
        form: One of ``WEIGHT_FORMS``. Files get native names; the folder gets transformers'.
        dtype: Dtype to convert to; None keeps each tensor's.
        num_heads: Attention heads, for the folder's config; default: from the source's own config,
            or known from the width.
        shard_bytes: Most bytes of tensors in a file of the folder.
        check_finite: Whether to refuse NaN and infinity.
        show_progress: Whether to draw a progress bar on the terminal.

    Raises:
        InputError: If the source cannot be read or has no such form.
        SaveError: If the target cannot be written.
    """
    refuse_existing(target)
    weights = open_backbone_weights(source)
    finish_checks()
    check_complete(weights)
    tensors = _native(weights, dtype, check_finite)
    if form == 'hf':
        heads = num_heads or _configured_heads(source) or HEADS_OF_WIDTH.get(
            weights[NATIVE.anchor].shape[0])
        config = hub_config(weights, heads, dtype)
        tensors = _in_transformers_names(tensors, source)
    try_target(target.rstrip('/'), sum(tensor.nbytes for tensor in tensors.values()),
               make_folder=False)
    with progress_of(tensors.values(), show_progress) as bar:
        if form == 'pth':
            write_pth(target, tensors, bar.update)
        elif form == 'safetensors':
            write_safetensors(target, tensors, bar.update)
        else:
            with atomic_folder(target.rstrip('/')) as folder:
                write_shards(folder, tensors, shard_bytes, bar.update)
                atomic_write(os.path.join(folder, 'config.json'),
                             json.dumps(config, indent=2) + '\n')


def refuse_existing(target: str) -> None:
    """Refuses to overwrite a file or folder.

    Raises:
        InputError: If it exists.
    """
    if os.path.exists(target):
        raise InputError(f'{target} exists: remove it first, or give another name')


def progress_of(tensors: Iterable[LazyTensor | Tensor], show: bool) -> tqdm:
    """Returns a progress bar over the bytes of tensors."""
    total = sum(tensor.nbytes for tensor in tensors)
    return progress_bar(total if show else 0, 'B', 'writing')


def check_complete(weights: LazyStateDict) -> None:
    """Refuses a file in which something is missing, left over or quantised.

    Raises:
        InputError: Naming it.
    """
    blocks = [name.split('.', 2) for name in weights if name.startswith('blocks.')]
    numbers = {int(number) for _, number, _ in blocks}
    numbers.update(range(len(numbers)))  # not up to the highest, which a file may give any value
    rests = {rest for _, _, rest in blocks}
    wanted = {f'blocks.{i}.{rest}' for i in numbers for rest in rests}
    wanted |= {'pos_embed', 'cls_token', 'patch_embed.proj.weight', 'patch_embed.proj.bias'}
    missing = wanted.difference(weights)
    if missing or weights.unknown or not blocks:
        raise InputError(f'{weights.path} is no complete InternViT: '
                         f'{describe_mismatch(missing, weights.unknown) or "it has no blocks"}')
    for name in weights:
        check_float(weights, name)


def hub_config(weights: LazyStateDict, num_heads: int | None,
               dtype: torch.dtype | None = None) -> dict:
    """Returns the config.json with which transformers builds an InternVLVisionModel for weights.

    Args:
        weights: All weights of the network, by native names.
        num_heads: Attention heads.
        dtype: Dtype of the weights afterwards; default: as they are.

    Raises:
        InputError: If transformers' class has no such network, or the heads are not known.
    """
    it = Architecture.of({name: tensor.shape for name, tensor in weights.items()})
    if num_heads is None or it.embed_dim % num_heads:
        raise InputError(f'{weights.path}: weights do not show the number of attention heads' + (
            '' if num_heads is None else f', and {num_heads} does not divide a width of '
            f'{it.embed_dim}') + ': give --num-heads')
    if not it.layer_scale or 'blocks.0.attn.q_norm.bias' in weights:
        raise InputError(f'{weights.path}: transformers has no InternVLVisionModel without layer '
                         'scale or with biases in the q and k norms: convert to .pth or '
                         '.safetensors')
    side = round((weights['pos_embed'].shape[1] - 1) ** 0.5) * it.patch_size
    stored = dtype or weights['patch_embed.proj.weight'].dtype
    return dict(
        architectures=['InternVLVisionModel'], model_type='internvl_vision',
        hidden_size=it.embed_dim, num_hidden_layers=it.depth, num_attention_heads=num_heads,
        intermediate_size=round(it.mlp_ratio * it.embed_dim), attention_bias=it.qkv_bias,
        use_qk_norm=it.qk_normalization, norm_type=it.norm_type, layer_norm_eps=1e-6,
        hidden_act='gelu', image_size=[side, side], patch_size=[it.patch_size] * 2,
        num_channels=it.in_chans, use_absolute_position_embeddings=True, use_mask_token=False,
        # With it there is no norm after the last block, and the published networks have none.
        use_mean_pooling=True, layer_scale_init_value=0.1, hidden_dropout_prob=0.0,
        attention_dropout=0.0, projection_dropout=0.0,
        torch_dtype=str(stored).removeprefix('torch.'))  # transformers 5 reads this name too


def _native(weights: LazyStateDict, dtype: torch.dtype | None,
            check_finite: bool) -> dict[str, LazyTensor]:
    """Sorts tensors as the network has them, and converts those of floating point."""
    order = sorted(weights, key=lambda name: (name.startswith('blocks.'), natural_key(name)))
    tensors = {}
    for name in order:
        tensor = weights[name].to(dtype or weights[name].dtype)
        tensors[name] = _checked(tensor, name, weights.path) if check_finite else tensor
    return tensors


def _checked(tensor: LazyTensor, name: str, path: str) -> LazyTensor:
    """Returns a tensor that refuses NaN and infinity when it is read."""
    return replace(tensor, read=lambda: refuse_nonfinite(tensor.read(), name, path))


def _in_transformers_names(tensors: dict[str, LazyTensor], path: str) -> dict[str, LazyTensor]:
    """Renames to transformers' names; q, k and v become tensors of their own."""
    left_aside = [name for name in tensors if name.startswith(PYRAMID)]
    if left_aside:
        logging.getLogger('mmseg').info('%s: left aside the feature pyramid (%d tensors), which '
                                        'transformers has not', path, len(left_aside))
    renamed: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        if name not in left_aside:
            names = TRANSFORMERS.translate(name)
            renamed.update(zip(names, tensor.chunk(len(names))))
    return renamed


def _configured_heads(source: str) -> int | None:
    """Returns the attention heads in a folder's config, of the network or of a whole model."""
    path = os.path.join(source, 'config.json')
    if not os.path.isfile(path):
        return None
    config = load_json(path, "the network's config.json")
    heads = dict(num_attention_heads=nullable(integer(1)))
    validate(config, record({}, dict(heads, vision_config=record({}, heads))), path)
    return config.get('vision_config', config).get('num_attention_heads')
