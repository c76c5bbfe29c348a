"""Which files of a folder hold weights: of a Hugging Face folder, or one of DeepSpeed or peft.

An index, ``*.index.json``, lists the shards that a large network is in.
"""
import os

from ..errors import InputError
from ..schema import load_json, record, shorten, validate
from . import deepspeed
from .adapter_record import MERGE
from .content import check_names
from .keys import DIALECTS, find_network

FOLDER_FILES = ('model.safetensors.index.json', 'model.safetensors',
                'pytorch_model.bin.index.json', 'pytorch_model.bin')
ADAPTER_CONFIG = 'adapter_config.json'  # in a folder of peft's adapters


def weights_file_of(folder: str) -> str:
    """Finds the file of weights, or the index of several, in a Hugging Face or DeepSpeed folder.

    Raises:
        InputError: If there is none.
    """
    for name in FOLDER_FILES:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return path
    states = deepspeed.find_states(folder)
    if states is not None:
        return states
    if is_adapter_folder(folder):
        raise InputError(f'{folder} holds adapters of peft, and no weights of a network: give it '
                         'as model.backbone.adapt.pretrained, or merge it into its backbone '
                         f'({MERGE} {folder} merged.pth --backbone FILE)')
    raise InputError(f'{folder} is a folder that holds no weights: expected a file, or one of '
                     f'{", ".join(FOLDER_FILES)} in it')


def is_adapter_folder(path: str) -> bool:
    """Returns whether a folder is one of peft's adapters, whole or not."""
    return os.path.exists(os.path.join(path, ADAPTER_CONFIG))


def files_of(folder: str) -> list[str]:
    """Returns the paths of all files of weights in a folder of another program.

    Raises:
        InputError: If there are none.
    """
    file = weights_file_of(folder)
    return all_shards_of(file) if file.endswith('.index.json') else [file]


def shards_of(index: str) -> list[str]:
    """Returns the paths of the shards in an index that the network is in.

    Where no name is that of a patch embedding of InternViT, they are all shards.
    """
    weight_map = weight_map_of(index)
    known = any(name.endswith(dialect.anchor) for name in weight_map for dialect in DIALECTS)
    prefix = find_network(weight_map, index)[1] if known else ''
    shards = {file for name, file in weight_map.items() if name.startswith(prefix)}
    return [os.path.join(os.path.dirname(index), shard) for shard in sorted(shards)]


def all_shards_of(index: str) -> list[str]:
    """Returns the paths of all shards in an index."""
    files = sorted(set(weight_map_of(index).values()))
    return [os.path.join(os.path.dirname(index), file) for file in files]


def weight_map_of(index: str) -> dict[str, str]:
    """Reads an index: tensor -> name of the file in the same folder.

    Raises:
        InputError: If it is no index, or names a file that cannot be beside it.
    """
    expected = 'an index of shards: {"weight_map": {TENSOR: FILE}}'
    content = load_json(index, expected)
    validate(content, record(dict(weight_map=record({}))), index, f'expected {expected}')
    weight_map = content['weight_map']
    check_names(weight_map, index)
    for name, file in weight_map.items():
        plain = isinstance(file, str) and file.isprintable() and file == os.path.basename(file)
        if not plain or file in ('', '.', '..') or file.endswith('.json'):
            raise InputError(f'{index}: the file of {name} is {shorten(file)}: expected the name '
                             'of a file beside the index')
    return weight_map
