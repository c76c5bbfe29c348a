"""Weights of a network, written in each form in which they are in circulation."""
import json
import os

import torch
from safetensors.torch import save_file

from mmseg_custom.checkpoint.keys import REMOTE_CODE, TRANSFORMERS


def renamed(state_dict: dict, dialect, prefix: str = '') -> dict:
    """A state dict under the names of another dialect."""
    out = {}
    for name, tensor in state_dict.items():
        names = dialect.translate(name)
        out.update({prefix + n: part.clone() for n, part in zip(names, tensor.chunk(len(names)))})
    return out


def with_prefix(state_dict: dict, prefix: str) -> dict:
    return {prefix + name: tensor for name, tensor in state_dict.items()}


def write_folder(folder, tensors: dict, shards: int) -> str:
    """A Hugging Face folder in shards with an index."""
    folder.mkdir()
    weight_map = {}
    for i in range(shards):
        part = dict(list(tensors.items())[i::shards])
        save_file(part, folder / f'model-{i}.safetensors')
        weight_map.update(dict.fromkeys(part, f'model-{i}.safetensors'))
    (folder / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=weight_map)))
    return str(folder)


def write_form(form: str, state_dict: dict, tmp_path) -> str:
    """Writes weights in one of the forms in circulation."""
    path = str(tmp_path / 'weights')
    head = {'decode_head.conv_seg.weight': torch.ones(3)}
    language = {'language_model.norm.weight': torch.ones(3), 'mlp1.0.bias': torch.ones(3)}
    pth = {
        'flat': state_dict,
        'under module': dict(module=state_dict),
        'old torch': state_dict,
        'segmentor': dict(meta={}, state_dict={**with_prefix(state_dict, 'backbone.'), **head}),
        'segmentor, DDP': dict(meta={}, state_dict=with_prefix(
            {**with_prefix(state_dict, 'backbone.'), **head}, 'module.')),
    }
    if form in pth:
        torch.save(pth[form], path, _use_new_zipfile_serialization=form != 'old torch')
    elif form == 'safetensors':
        save_file(state_dict, path)
    elif form == 'remote code':
        os.mkdir(path)
        save_file(renamed(state_dict, REMOTE_CODE), path + '/model.safetensors')
    elif form == 'transformers, shards':
        write_folder(tmp_path / 'weights', renamed(state_dict, TRANSFORMERS), 3)
    elif form == 'remote code, bin':
        os.mkdir(path)
        torch.save(renamed(state_dict, REMOTE_CODE), path + '/pytorch_model.bin')
    elif form == 'remote code, whole VLM':
        write_folder(tmp_path / 'weights', {
            **renamed(state_dict, REMOTE_CODE, 'vision_model.'), **language}, 2)
    elif form == 'transformers, whole VLM':
        write_folder(tmp_path / 'weights', {
            **renamed(state_dict, TRANSFORMERS, 'model.vision_tower.'), **language}, 2)
    return path


FORMS = ('flat', 'under module', 'old torch', 'segmentor', 'segmentor, DDP', 'safetensors',
         'remote code', 'remote code, bin', 'transformers, shards', 'remote code, whole VLM',
         'transformers, whole VLM')
