"""From any form of InternViT's weights to another: .pth, safetensors, Hugging Face folder."""
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import InputError
from ..files import PART
from .export import (
    SILENT,
    Progress,
    write_pth,
    write_safetensors,
    write_shards,
    write_text,
)
from .keys import (
    NATIVE,
    PYRAMID,
    TRANSFORMERS,
    Architecture,
    describe_mismatch,
    natural_key,
)
from .lazy import LazyStateDict, LazyTensor
from .load import check_float, open_backbone_weights

FORMS = ('pth', 'safetensors', 'hf')
HEADS_OF_WIDTH = {3200: 25, 1024: 16}  # InternViT-6B and InternViT-300M
SHARD_BYTES = 4 * 10**9


def form_of(path: str) -> str:
    """The form that a name asks for: .pth, .safetensors, and no ending for a folder.

    Raises:
        InputError: For any other ending.
    """
    ending = os.path.splitext(path.rstrip('/'))[1]
    forms = {'.pth': 'pth', '.pt': 'pth', '.bin': 'pth', '.safetensors': 'safetensors', '': 'hf'}
    if os.path.isdir(path):
        return 'hf'
    if ending not in forms:
        raise InputError(f'{path}: what form {ending!r} is to be is unknown: end the name in .pth '
                         f'or .safetensors, or say --to {"|".join(FORMS)}')
    return forms[ending]


def convert(source: str, target: str, form: str, *, dtype: torch.dtype | None = None,
            num_heads: int | None = None, shard_bytes: int = SHARD_BYTES,
            check_finite: bool = False, progress: Progress = SILENT) -> None:
    """Converts weights, in the memory of about one tensor.

    Args:
        source: File or folder of any form.
        target: File or folder to write; must not exist.
        form: One of ``FORMS``. Files get native names; the folder gets transformers'.
        dtype: To convert to; None keeps each tensor's.
        num_heads: Attention heads, for the folder's config; default: from the source's own config,
            or known from the width.
        shard_bytes: At most this much in a file of the folder.
        check_finite: Refuse NaN and infinity.
        progress: Told of each tensor.

    Raises:
        InputError: If the source cannot be read or has no such form.
        SaveError: If the target cannot be written.
    """
    if os.path.exists(target):
        raise InputError(f'{target} exists: remove it first, or give another name')
    network = open_backbone_weights(source)
    check_complete(network)
    tensors = _native(network, dtype, check_finite)
    if form == 'hf':
        heads = num_heads or _configured_heads(source) or HEADS_OF_WIDTH.get(_width(network))
        config = hub_config(network, heads, dtype)
        tensors = _in_transformers_names(tensors, network)
    progress.reset(sum(tensor.nbytes for tensor in tensors.values()))
    if form == 'pth':
        write_pth(target, tensors, progress)
    elif form == 'safetensors':
        write_safetensors(target, tensors, progress)
    else:
        with _folder_whole(target) as folder:
            write_shards(folder, tensors, shard_bytes, progress)
            write_text(os.path.join(folder, 'config.json'), json.dumps(config, indent=2))


def check_complete(network: LazyStateDict) -> None:
    """Refuses a file in which something is missing, left over or quantised.

    Raises:
        InputError: Naming it.
    """
    blocks = [name.split('.', 2) for name in network.parts if name.startswith('blocks.')]
    depth = 1 + max((int(number) for _, number, _ in blocks), default=-1)
    wanted = {f'blocks.{i}.{rest}' for i in range(depth) for _, _, rest in blocks}
    wanted |= {'pos_embed', 'cls_token', 'patch_embed.proj.weight', 'patch_embed.proj.bias'}
    missing = wanted.difference(network.parts)
    if missing or network.unknown or not blocks:
        raise InputError(f'{network.path} is no complete InternViT: '
                         f'{describe_mismatch(missing, network.unknown) or "it has no blocks"}')
    for name in network.parts:
        check_float(network, name)


def hub_config(network: LazyStateDict, num_heads: int | None,
               dtype: torch.dtype | None = None) -> dict:
    """The config.json with which transformers builds an InternVLVisionModel for a network.

    Raises:
        InputError: If transformers' class has no such network, or the heads are not known.
    """
    it = Architecture.of(network.shapes())
    if num_heads is None or it.embed_dim % num_heads:
        raise InputError(f'{network.path}: weights do not show the number of attention heads, and '
                         f'{num_heads} does not divide a width of {it.embed_dim}: give --num-heads')
    if not it.layer_scale or 'blocks.0.attn.q_norm.bias' in network.parts:
        raise InputError(f'{network.path}: transformers has no InternVLVisionModel without layer '
                         'scale or with biases in the q and k norms: convert to .pth or '
                         '.safetensors')
    side = round((network.shape('pos_embed')[1] - 1) ** 0.5) * it.patch_size
    stored = dtype or network.dtype('patch_embed.proj.weight')
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


def _native(network: LazyStateDict, dtype: torch.dtype | None,
            check_finite: bool) -> dict[str, LazyTensor]:
    """All tensors of a network under native names, in the order of the network."""
    order = sorted(network.parts, key=lambda name: (name.startswith('blocks.'), natural_key(name)))
    return {name: lazy(network, name, dtype, check_finite) for name in order}


def lazy(network: LazyStateDict, name: str, dtype: torch.dtype | None = None,
         check_finite: bool = False) -> LazyTensor:
    """A tensor of a file that is read when it is written."""

    def make() -> Tensor:
        tensor = network.tensor(name).to(wanted)
        if check_finite and not tensor.isfinite().all():
            raise InputError(f'{network.path}: {name} holds NaN or infinity in '
                             f'{str(wanted).removeprefix("torch.")}: the file is damaged, or its '
                             'training diverged')
        return tensor

    wanted = dtype if dtype and network.dtype(name).is_floating_point else network.dtype(name)
    return LazyTensor(network.shape(name), wanted, make, lambda: network.release(name))


def _in_transformers_names(tensors: dict[str, LazyTensor],
                           network: LazyStateDict) -> dict[str, LazyTensor]:
    """Renames to transformers' names; q, k and v become tensors of their own."""
    renamed = {}
    left_aside = [name for name in tensors if name.startswith(PYRAMID)]
    if left_aside:
        logging.getLogger('mmseg').info('%s: left aside the feature pyramid (%d tensors), which '
                                        'transformers has not', network.path, len(left_aside))
    for name, tensor in tensors.items():
        if name in left_aside:
            continue
        names = TRANSFORMERS.translate(name)
        if len(names) == 1:
            renamed[names[0]] = tensor
            continue
        shape = (tensor.shape[0] // len(names), *tensor.shape[1:])
        for i, part in enumerate(names):
            renamed[part] = LazyTensor(shape, tensor.dtype, _chunk_of(tensor, i, len(names)),
                                       tensor.done)
    return renamed


def _chunk_of(tensor: LazyTensor, index: int, count: int) -> Callable[[], Tensor]:
    return lambda: tensor.make().chunk(count)[index]


def _configured_heads(source: str) -> int | None:
    """The attention heads in the config of a folder, of the network or of a whole model."""
    path = os.path.join(source, 'config.json')
    if not os.path.isfile(path):
        return None
    try:
        with open(path, encoding='utf-8') as file:
            config = json.load(file)
    except (OSError, ValueError) as error:
        raise InputError(f'{path} cannot be read: {error}') from error
    return config.get('vision_config', config).get('num_attention_heads')


def _width(network: LazyStateDict) -> int:
    return network.shape(NATIVE.anchor)[0]


@contextmanager
def _folder_whole(path: str) -> Iterator[str]:
    """Gives a temporary folder beside the target; renames it at the end, removes after an error."""
    part = path.rstrip('/') + PART
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    try:
        yield part
        os.rename(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
