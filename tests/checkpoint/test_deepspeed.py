"""DeepSpeed's checkpoints, as its engine writes them: weights are taken, no code is run."""
import os
import sys
import types
from collections import OrderedDict

import pytest
import torch
from helpers.logs import logged
from helpers.tiny_networks import Segmentor, same
from safetensors.torch import save_file

from mmseg_custom.checkpoint.checkpoint import open_checkpoint
from mmseg_custom.checkpoint.convert import convert
from mmseg_custom.checkpoint.files import read_weights
from mmseg_custom.checkpoint.merge import merge
from mmseg_custom.checkpoint.segmentor import load_segmentor, read_checkpoint
from mmseg_custom.checkpoint.work_dir import open_whole
from mmseg_custom.errors import InputError
from mmseg_custom.evaluation.run_info import describe_checkpoint

STATES = 'mp_rank_00_model_states.pt'
META = dict(CLASSES=('a', 'b', 'c'), PALETTE=[[1, 2, 3]] * 3, epoch=1, iter=6, mmseg_version='0.30')


def on_meta() -> Segmentor:
    with torch.device('meta'):
        return Segmentor()


def flattened(state: dict) -> OrderedDict:
    """Weights in 16 bits as views of one flat tensor, as ZeRO keeps them; buffers as they are."""
    floats = {name: value for name, value in state.items() if value.is_floating_point()}
    flat = torch.cat([value.flatten() for value in floats.values()]).bfloat16()
    views = dict(zip(floats, flat.split([value.numel() for value in floats.values()])))
    return OrderedDict((name, views[name].view(value.shape) if name in views else value)
                       for name, value in state.items())


def content_of(model) -> dict:
    """What DeepSpeed's engine saves of a model, and what the fork adds to it."""
    shapes = OrderedDict((name, parameter.shape) for name, parameter in model.named_parameters())
    return dict(module=flattened(model.state_dict()), buffer_names=['decode_head.norm.running_var'],
                optimizer=None, param_shapes=[shapes], lr_scheduler=None, skipped_steps=0,
                sparse_tensor_module_names=set(), global_steps=7, global_samples=112,
                dp_world_size=8, mp_world_size=1, ds_config='zero_configs/adam_zero1_bf16.json',
                ds_version='0.8.0', **META)


@pytest.fixture
def fork(tmp_path):
    """A work dir of the fork: (model in bfloat16, folder, file of its weights)."""
    model = Segmentor().bfloat16()
    folder = tmp_path / 'work_dir/iter_7'
    (folder / 'global_step7').mkdir(parents=True)
    (tmp_path / 'work_dir/latest').symlink_to('iter_7')
    path = folder / 'global_step7' / STATES
    torch.save(content_of(model), path)
    return model, folder, path


@pytest.mark.parametrize('given', ['iter_7', 'latest', '.', 'iter_7/global_step7',
                                   f'iter_7/global_step7/{STATES}'])
def test_weights_of_any_path_are_taken(fork, given, monkeypatch):
    model, folder, path = fork
    monkeypatch.chdir(folder.parent)
    loaded = on_meta()
    with logged() as lines:
        checkpoint = load_segmentor(loaded, given)
    assert same({name: value.to(loaded.state_dict()[name].dtype)
                 for name, value in model.state_dict().items()}, loaded.state_dict())
    assert os.path.samefile(checkpoint.path, path) and checkpoint.optimizer is None
    assert checkpoint.meta['CLASSES'] == META['CLASSES'] and 'iter' not in checkpoint.meta
    assert checkpoint.meta['deepspeed'] == dict(version='0.8.0', iter=6)
    (line,) = [line for line in lines if 'DeepSpeed' in line]
    assert 'as bfloat16; float32 weights and the optimizer' in line


def test_latest_names_the_folder(fork):
    _, folder, path = fork
    os.rename(folder / 'global_step7', folder / 'global_step8')
    os.makedirs(folder / 'global_step7')
    with pytest.raises(InputError, match=r'checkpoints of 2 iterations \(global_step7, global_st'):
        open_checkpoint(str(folder))
    (folder / 'latest').write_text('global_step8\n')
    assert open_checkpoint(str(folder)).path == str(folder / 'global_step8' / STATES)
    (folder / 'latest').unlink()
    (folder / 'latest').symlink_to('.')
    with pytest.raises(InputError, match='is a folder that holds no weights: expected a'):
        open_checkpoint(str(folder))


def test_a_backbone_is_taken_of_it(fork, tmp_path):
    model, folder, _ = fork
    assert set(read_weights(str(folder))) == set(model.state_dict())
    convert(str(folder), str(tmp_path / 'backbone.pth'), 'pth')
    assert same(torch.load(tmp_path / 'backbone.pth'), model.backbone.state_dict())


def test_it_becomes_a_classic_file(fork, tmp_path):
    model, folder, path = fork
    merge(str(folder), str(tmp_path / 'classic.pth'))
    merge(str(path), str(tmp_path / 'weights.safetensors'))
    content = torch.load(tmp_path / 'classic.pth', weights_only=True)
    assert set(content) == {'meta', 'state_dict'} and same(content['state_dict'],
                                                           model.state_dict())
    assert content['meta']['CLASSES'] == META['CLASSES']
    mmcvs = read_checkpoint(str(folder))
    assert same(mmcvs['state_dict'], model.state_dict()) and set(mmcvs) == {'meta', 'state_dict'}


def test_no_run_is_resumed_from_it(fork, tmp_path):
    _, folder, path = fork
    merge(str(path), str(tmp_path / 'classic.pth'))
    for given in (folder, path, tmp_path / 'classic.pth'):
        with pytest.raises(InputError, match='DeepSpeed, whose optimizer is not .* --load-from$'):
            open_whole(str(given))


def test_the_record_of_a_test_names_the_folder(fork):
    _, folder, path = fork
    found = describe_checkpoint(str(folder))
    assert found['file'] == 'iter_7' and found['bytes'] == path.stat().st_size


@pytest.fixture
def gone(monkeypatch):
    """A class of a module of DeepSpeed that is there while a file is written, and not later."""
    module = types.ModuleType('deepspeed.runtime.loss_scaler')
    scaler = type('Scaler', (), dict(__module__=module.__name__, __qualname__='Scaler'))
    module.Scaler = scaler
    for name in ('deepspeed', 'deepspeed.runtime', module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    scaled = scaler()
    scaled.scale = torch.ones(3)
    return scaled


@pytest.mark.parametrize('others', [
    lambda scaler: dict(lr_scheduler=scaler), lambda scaler: dict(hook_msgs=scaler),
    lambda scaler: dict(ds_config=dict(scaler=[scaler]))])
def test_objects_of_deepspeed_are_left_aside(fork, gone, others, monkeypatch):
    model, _, path = fork
    torch.save({**content_of(model), **others(gone)}, path)
    monkeypatch.undo()
    assert 'deepspeed' not in sys.modules
    checkpoint = open_checkpoint(str(path))
    assert len(checkpoint.weights) == len(model.state_dict())
    assert 'hook_msgs' not in checkpoint.meta and checkpoint.others == {}


class Evil:
    def __reduce__(self):
        return os.system, ('touch harmed',)


@pytest.mark.parametrize('beside', [False, True])
def test_code_is_not_run(fork, gone, beside, tmp_path, monkeypatch):
    model, _, path = fork
    if beside:
        gone.evil = Evil()
    torch.save({**content_of(model), 'lr_scheduler': gone if beside else Evil()}, path)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match='refused: it asks for .*system.*zero_to_fp32.py'):
        open_checkpoint(str(path))
    assert not (tmp_path / 'harmed').exists()


def test_what_is_no_whole_network_is_refused(fork):
    model, folder, path = fork
    for content, message in (
            (content_of(model) | dict(mp_world_size=2), 'tensor parallelism'),
            (content_of(model) | dict(module={name: torch.empty(0) for name in model.state_dict()}),
             'ZeRO stage 3 has partitioned: merge it with the zero_to_fp32.py beside it'),
            (dict(optimizer_state_dict={}, ds_version='0.8.0'), f'give {STATES} beside it, or me'),
            (content_of(model) | dict(module=None), 'expected a')):
        torch.save(content, path)
        with pytest.raises(InputError, match=message):
            open_checkpoint(str(path))
    path.rename(path.with_name(f'zero_pp_rank_0_{STATES}'))
    with pytest.raises(InputError, match=r'zero_pp_rank_0_.* ZeRO stage 3 .*zero_to_fp32.py'):
        open_checkpoint(str(folder))
    for rank in ('00', '01'):
        (path.parent / f'mp_rank_{rank}_model_states.pt').touch()
    with pytest.raises(InputError, match='tensor parallelism has split'):
        open_checkpoint(str(folder))


def merged(model) -> dict:
    """What zero_to_fp32.py writes: everything in float32, counters too."""
    return {name: value.float() for name, value in model.state_dict().items()}


@pytest.mark.parametrize('form', ['bin', 'beside', 'safetensors', 'shards'])
def test_merged_files_are_read(form, fork, tmp_path):
    model, folder, _ = fork
    weights, given = merged(model), folder if form == 'beside' else tmp_path / 'merged'
    given.mkdir(exist_ok=True)
    if form in ('bin', 'beside'):
        torch.save(weights, given / 'pytorch_model.bin')
    elif form == 'safetensors':
        save_file(weights, given / 'model.safetensors')
    else:
        names = {name: f'pytorch_model-0000{1 + name.startswith("decode")}-of-00002.bin'
                 for name in weights}
        for file in set(names.values()):
            torch.save({name: weights[name] for name in names if names[name] == file}, given / file)
        (given / 'pytorch_model.bin.index.json').write_text(
            str(dict(weight_map=names)).replace("'", '"'))
    for path in (given, given / 'pytorch_model.bin') if form == 'bin' else (given,):
        loaded = on_meta()
        load_segmentor(loaded, str(path))
        assert same(loaded.state_dict(), {
            name: value.to(loaded.state_dict()[name].dtype) for name, value in weights.items()})
        with pytest.raises(InputError, match='does not say after which iteration.*--load-from'):
            open_whole(str(path))
    assert describe_checkpoint(str(given))['file'] == given.name
    merge(str(given), str(tmp_path / 'classic.pth'))
    assert same(torch.load(tmp_path / 'classic.pth')['state_dict'], weights)
