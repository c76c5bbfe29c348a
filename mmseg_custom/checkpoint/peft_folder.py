"""Folders of adapters in the form of the library peft: written, and read.

    adapter_config.json           rank, alpha, layers
    adapter_model.safetensors     base_model.model.encoder.layer.3.attention.q_proj.lora_A.weight

Written ones have the names of transformers' InternVLVisionModel, where q, k and v are layers of
their own: A of our fused layer is shared by them, B and the norms of DoRA are split. The metadata
of the safetensors file says which file the adapters were trained on (``base``), and in what
(``frozen_dtype``). Read are these, and what peft saved of a model with the names of any dialect
(:mod:`.keys`): adapters of q, k and v, each of its own rank, become one of the fused layer.

        A_q            B_q s_q   0         0
    A = A_k    s B =   0         B_k s_k   0          s = alpha / r
        A_v            0         0         B_v s_v

peft itself is not needed.
"""
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import InputError, some_of
from ..files import atomic_folder, atomic_write
from ..schema import anything, integer, load_json, number, record, validate
from .adapters import Adapter
from .content import check_backbone_record
from .export import Progress, write_safetensors
from .files import read_weights
from .keys import DIALECTS, TRANSFORMERS, Dialect, natural_key
from .lazy import LazyStateDict, LazyTensor, compute, concatenate

CONFIG, WEIGHTS = 'adapter_config.json', 'adapter_model.safetensors'
OLD_WEIGHTS = 'adapter_model.bin'
BASE, FROZEN_DTYPE = 'base', 'frozen_dtype'  # in the metadata of the safetensors file
PREFIX = 'base_model.model.'
ADAPTED = ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')
PARTS = dict(lora_A='a', lora_B='b', lora_magnitude_vector='norms')
# Settings of peft that change nothing of what trained adapters compute, or are read here; others
# must be unset.
HARMLESS = frozenset([
    'auto_mapping', 'base_model_name_or_path', 'ensure_weight_tying', 'eva_config',
    'exclude_modules', 'inference_mode', 'layers_pattern', 'layers_to_transform', 'lora_alpha',
    'lora_dropout', 'megatron_core', 'peft_type', 'peft_version', 'qalora_group_size', 'r',
    'rank_pattern', 'revision', 'runtime_config', 'target_modules', 'task_type', 'use_dora',
    'use_rslora', 'velora_config'])
# Values of init_lora_weights that leave the weights of the layer as they are.
PLAIN_STARTS = (True, False, 'gaussian', 'eva', 'orthogonal', 'mica')


@dataclass(frozen=True)
class AdapterFolder:
    """Adapters of a folder.

    Attributes:
        path: The folder.
        adapters: Adapters by the native names of their layers: 'blocks.3.attn.qkv'.
        use_dora: Whether they have norms.
        base: Record of the backbone's file that they were trained on, as ``meta['backbone']`` of a
            checkpoint; None if it is not known.
        frozen_dtype: The type of 8 bits that this backbone was rounded to; None if it was not.
    """
    path: str
    adapters: dict[str, Adapter]
    use_dora: bool
    base: dict[str, Any] | None = None
    frozen_dtype: str | None = None


def is_adapter_folder(path: str) -> bool:
    """Whether a path is a folder of this kind, whole or not."""
    return os.path.exists(os.path.join(path, CONFIG))


def write_adapter_folder(folder: str, given: AdapterFolder, alpha: float,
                         progress: Progress = lambda nbytes: None) -> None:
    """Writes a folder that peft loads onto transformers' InternVLVisionModel.

    Args:
        folder: Folder to write.
        given: Adapters of one rank and one factor.
        alpha: Numerator of their factor.
        progress: Function that is called after each tensor with its bytes.

    Raises:
        SaveError: If it cannot be written; nothing is left then.
    """
    tensors: dict[str, LazyTensor] = {}
    targets: set[str] = set()
    blocks: set[int] = set()
    for layer, adapter in given.adapters.items():
        _, block, native = layer.split('.', 2)
        blocks.add(int(block))
        names = TRANSFORMERS.translate(layer + '.weight')
        names = tuple(PREFIX + name.removesuffix('.weight') for name in names)
        targets.update(name.partition(f'.{block}.')[2] for name in names)
        for part, kind in PARTS.items():
            whole = getattr(adapter, kind)
            if whole is not None:
                split = [whole] * len(names) if kind == 'a' else whole.chunk(len(names))
                ending = '' if kind == 'norms' else '.weight'
                tensors.update((f'{name}.{part}{ending}', tensor)
                               for name, tensor in zip(names, split))
    rank = next(iter(given.adapters.values())).rank
    config = dict(
        peft_type='LORA', task_type=None, base_model_name_or_path=None, inference_mode=True,
        r=rank, lora_alpha=alpha, lora_dropout=0.0, bias='none', use_dora=given.use_dora,
        target_modules=sorted(targets), layers_to_transform=sorted(blocks), layers_pattern='layer')
    about = {key: json.dumps(value) for key, value in (
        (BASE, given.base), (FROZEN_DTYPE, given.frozen_dtype)) if value is not None}
    with atomic_folder(folder) as part_folder:
        write_safetensors(os.path.join(part_folder, WEIGHTS), tensors, progress, about)
        atomic_write(os.path.join(part_folder, CONFIG), json.dumps(config, indent=2) + '\n')


def read_adapter_folder(folder: str) -> AdapterFolder:
    """Opens a folder; its tensors are read when they are needed.

    Raises:
        InputError: If a file is missing or damaged, a setting of peft is not supported, or a layer
            is none that has adapters here.
    """
    config = _read_config(os.path.join(folder, CONFIG))
    path = next((path for name in (WEIGHTS, OLD_WEIGHTS) if os.path.exists(
        path := os.path.join(folder, name))), None)
    if path is None:
        raise InputError(f'{folder} lacks {WEIGHTS}: copy the whole folder')
    weights = read_weights(path)
    found = _find_parts(weights, path)
    adapters = {}
    for layer in sorted(found, key=natural_key):
        parts = [_adapter(layer, part, config, path) if part else None for part in found[layer]]
        adapters[layer] = _fuse(layer, parts, path)
    about = _metadata_of(path) if path.endswith(WEIGHTS) else {}
    return AdapterFolder(folder, adapters, config['use_dora'], about.get(BASE),
                         about.get(FROZEN_DTYPE))


def _read_config(path: str) -> dict[str, Any]:
    """Reads and checks the settings of adapters."""
    config = load_json(path, "peft's settings of adapters")
    validate(config, record(dict(peft_type=anything, r=integer(1), lora_alpha=number())), path)
    if config['peft_type'] != 'LORA':
        raise InputError(f'{path}: peft_type is {config["peft_type"]!r}: adapters here are LORA')
    start, bias = config.pop('init_lora_weights', True), config.pop('bias', 'none')
    config.setdefault('use_dora', False)
    used = {name: value for name, value in config.items() if value and name not in HARMLESS}
    if start not in PLAIN_STARTS:
        used['init_lora_weights'] = start  # the layers' weights were changed by it
    if bias != 'none':
        used['bias'] = bias
    if used:
        name, value = next(iter(used.items()))
        raise InputError(f'{path}: {name} is {value!r}, which is not supported here: train without '
                         'it, or merge the adapters with peft (merge_and_unload)')
    return config


def _find_parts(weights: LazyStateDict, path: str) -> dict[str, list[dict[str, LazyTensor]]]:
    """Finds the adapters of InternViT's layers among the tensors of a file.

    Returns:
        Native name of a layer -> tensors by kind of each of the layers that it is joined of.
    """
    found: dict[str, list[dict[str, LazyTensor]]] = {}
    unknown = []
    for name, tensor in weights.items():
        place = _place_of(name)
        if place is None:
            unknown.append(name)
            continue
        layer, position, count, kind = place
        parts = found.setdefault(layer, [{} for _ in range(count)])
        if len(parts) != count or kind in parts[position]:
            raise InputError(f'{path} holds adapters of more than one network: {name}, and others '
                             f'of {layer}')
        parts[position][kind] = tensor
    if unknown or not found:
        raise InputError(f'{path}: expected adapters of linear layers in blocks of an InternViT '
                         f'({", ".join(ADAPTED)}), found {some_of(unknown) or "none"}')
    return found


def _place_of(name: str) -> tuple[str, int, int, str] | None:
    """Finds what a tensor is of: (native layer, position and count of its parts, kind)."""
    ending = re.search(r'\.(' + '|'.join(PARTS) + r')(\.default)?(\.weight)?$', name)
    if ending is None:
        return None
    module, kind = name[:ending.start()], PARTS[ending.group(1)]
    for dialect in DIALECTS:
        for native in ADAPTED:
            stems = _stems(dialect, native)
            for position, stem in enumerate(stems):
                match = re.search(rf'(?:^|\.){re.escape(dialect.blocks)}([0-9]{{1,6}})\.'
                                  rf'{re.escape(stem)}$', module)
                if match:
                    return f'blocks.{int(match.group(1))}.{native}', position, len(stems), kind
    return None


def _stems(dialect: Dialect, native: str) -> Sequence[str]:
    stem = dialect.stem[native]
    return (stem,) if isinstance(stem, str) else stem


def _adapter(name: str, part: Mapping[str, LazyTensor], config: Mapping, path: str) -> Adapter:
    """Makes the adapter of a layer of its own of tensors by kind."""
    a, b, norms = (part.get(kind) for kind in PARTS.values())
    if a is None or b is None or (norms is not None) != config['use_dora']:
        missing = 'lora_A' if a is None else 'lora_B' if b is None else 'lora_magnitude_vector'
        raise InputError(f'{path}: {missing} of {name} is '
                         + ('missing' if config['use_dora'] or norms is None else
                            'there without use_dora') + ': save the adapters again')
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or (
            norms is not None and norms.shape != b.shape[:1]):
        raise InputError(f'{path}: tensors of {name} have shapes {a.shape}, {b.shape}'
                         + (f', {norms.shape}' if norms else '') + ': expected (r, I), (O, r)'
                         + (', (O,)' if norms else ''))
    rank = a.shape[0]
    return Adapter(a, b, config['lora_alpha'] / (rank ** 0.5 if config.get('use_rslora') else rank),
                   norms)


def _fuse(layer: str, parts: Sequence[Adapter | None], path: str) -> Adapter:
    """Joins adapters of q, k and v to one of the fused layer; exact."""
    there = [part for part in parts if part is not None]
    if len(parts) == 1:
        return there[0]
    first = there[0]
    rows, inputs = first.b.shape[0], first.a.shape[1]
    if any(part.b.shape[0] != rows or part.a.shape[1] != inputs for part in there):
        raise InputError(f'{path}: adapters of q, k and v of {layer} have different sizes')
    norms = None if first.norms is None else concatenate([
        _no_norms(rows) if part is None or part.norms is None else part.norms for part in parts])
    if len(there) == len(parts) and all(_is_same(first, part) for part in there):
        return replace(first, b=concatenate([part.b for part in there]), norms=norms)
    return Adapter(concatenate([part.a for part in there]), _block_diagonal(parts, first),
                   first.factor, norms)


def _is_same(first: Adapter, other: Adapter) -> bool:
    """Whether an adapter has the A and the factor of another."""
    return first.factor == other.factor and first.a.shape == other.a.shape and torch.equal(
        first.a.read(), other.a.read())


def _block_diagonal(parts: Sequence[Adapter | None], first: Adapter) -> LazyTensor:
    """Returns B (3 O, sum of the ranks), in the factor of the first part."""
    rows = first.b.shape[0]
    there = [part for part in parts if part is not None]

    def build(*matrices: Tensor) -> Tensor:
        given = iter(matrices)
        blocks = [torch.zeros(rows, 0) if part is None
                  else next(given).float() * (part.factor / first.factor) for part in parts]
        return torch.block_diag(*blocks)

    return compute(build, [part.b for part in there],
                   (rows * len(parts), sum(part.rank for part in there)), torch.float32)


def _no_norms(rows: int) -> LazyTensor:
    return LazyTensor.of(torch.full((rows,), float('nan')))


def _metadata_of(path: str) -> dict[str, Any]:
    """Reads what a file written here says of its base; of others, nothing."""
    with safe_open(path, framework='pt', device='cpu') as file:
        found = file.metadata() or {}
    try:
        about = {key: json.loads(found[key]) for key in (BASE, FROZEN_DTYPE) if key in found}
    except ValueError as error:
        raise InputError(f'{path}: its metadata is damaged: {error}') from error
    if BASE in about:
        check_backbone_record(about[BASE], f'{path}: {BASE} in its metadata')
    return about
