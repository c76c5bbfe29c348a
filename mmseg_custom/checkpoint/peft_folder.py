"""Folders of adapters in the form of the library peft: written, and read.

    adapter_config.json           rank, alpha, layers
    adapter_model.safetensors     base_model.model.encoder.layer.3.attention.q_proj.lora_A.weight

Written ones have the names of transformers' InternVLVisionModel, where q, k and v are layers of
their own: A of our fused layer is shared by them, B and the norms of DoRA are split. The metadata
of the safetensors file says which file the adapters were trained on (``base``), and in what
(``frozen_dtype``). Read are these, and what peft saved of a model with the names of any dialect
(:mod:`.peft_tensors`). peft itself is not needed.
"""
import json
import os
from dataclasses import dataclass
from typing import Any

from safetensors import safe_open

from ..errors import InputError
from ..files import atomic_folder, atomic_write
from ..layers.quantized_linear import DTYPES
from ..schema import anything, integer, load_json, number, record, shorten, validate
from .adapters import Adapter
from .content import check_backbone_record
from .export import Progress, write_safetensors
from .files import read_weights
from .folders import ADAPTER_CONFIG
from .keys import TRANSFORMERS
from .lazy import LazyStateDict, LazyTensor
from .peft_tensors import PARTS, adapters_of

WEIGHTS, OLD_WEIGHTS = 'adapter_model.safetensors', 'adapter_model.bin'
BASE, FROZEN_DTYPE = 'base', 'frozen_dtype'  # in the metadata of the safetensors file
PREFIX = 'base_model.model.'
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
        atomic_write(os.path.join(part_folder, ADAPTER_CONFIG), json.dumps(config, indent=2) + '\n')


def read_adapter_folder(folder: str) -> AdapterFolder:
    """Opens a folder; its tensors are read when they are needed.

    Raises:
        InputError: If a file is missing or damaged, a setting of peft is not supported, or a layer
            is none that has adapters here.
    """
    config = _read_config(os.path.join(folder, ADAPTER_CONFIG))
    path = next((path for name in (WEIGHTS, OLD_WEIGHTS) if os.path.exists(
        path := os.path.join(folder, name))), None)
    if path is None:
        raise InputError(f'{folder} lacks {WEIGHTS}: copy the whole folder')
    weights = read_weights(path)
    if not config.get('rank_pattern'):
        _check_rank(weights, config['r'])
    use_dora = bool(config.get('use_dora'))
    adapters = adapters_of(weights, config['lora_alpha'], use_dora, bool(config.get('use_rslora')))
    about = _metadata_of(path) if path.endswith(WEIGHTS) else {}
    return AdapterFolder(folder, adapters, use_dora, about.get(BASE), about.get(FROZEN_DTYPE))


def _read_config(path: str) -> dict[str, Any]:
    """Reads and checks the settings of adapters."""
    config = load_json(path, "peft's settings of adapters")
    validate(config, record(dict(peft_type=anything, r=integer(1), lora_alpha=number())), path)
    if config['peft_type'] != 'LORA':
        raise InputError(f'{path}: peft_type is {config["peft_type"]!r}: adapters here are LORA')
    start, bias = config.pop('init_lora_weights', True), config.pop('bias', 'none')
    used = {name: value for name, value in config.items() if value and name not in HARMLESS}
    if start not in PLAIN_STARTS:
        used['init_lora_weights'] = start  # the layers' weights were changed by it
    if bias != 'none':
        used['bias'] = bias
    if used:
        name, value = next(iter(used.items()))
        raise InputError(f'{path}: {name} is {shorten(value)}, which is not supported here: train '
                         'without it, or merge the adapters with peft (merge_and_unload)')
    return config


def _check_rank(weights: LazyStateDict, rank: int) -> None:
    """Refuses tensors of another rank than the settings say: the two are not of one training."""
    for name, tensor in weights.items():
        if '.lora_A.' in name and tensor.shape[:1] not in ((), (0,), (rank,)):
            raise InputError(f'{weights.path}: {name} has rank {tensor.shape[0]}, but '
                             f'{ADAPTER_CONFIG} says r={rank}: copy both files of one folder')


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
    if about.get(FROZEN_DTYPE) not in (None, *DTYPES):
        raise InputError(f'{path}: {FROZEN_DTYPE} in its metadata is '
                         f'{shorten(about[FROZEN_DTYPE])}: expected one of {", ".join(DTYPES)}')
    return about
