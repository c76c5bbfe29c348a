"""Damaged and hostile files of weights, in every form: refused in one line, or read to the bit."""
import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.data import SMALL_LINEAR, write_config
from helpers.faults import CANARY, Case, Outcome, damaged
from helpers.runs import sharded_state
from helpers.tiny_networks import SIZE, same
from helpers.zygote import Zygote
from safetensors.torch import load_file, save_file

from mmseg_custom.models.backbones.intern_vit import InternViT6B

pytestmark = pytest.mark.slow
RUN = SMALL_LINEAR + """
runner = dict(max_iters=6)
checkpoint_config = dict(interval=2, max_keep_ckpts=-1)
evaluation = dict(interval=100)
model['backbone'].update(freeze_vit=False)
"""


@pytest.fixture(scope='module')
def sources(shared_data, tmp_path_factory) -> Path:
    """Weights in every form, and runs of one process (run) and of two (two)."""
    folder, zygote = tmp_path_factory.mktemp('weights'), Zygote()
    torch.save(InternViT6B(**SIZE).state_dict(), folder / 'flat.pth')
    zygote.run('tools/convert_weights.py', folder / 'flat.pth', folder / 'flat.safetensors')
    zygote.run('tools/convert_weights.py', folder / 'flat.pth', folder / 'hub', '--to', 'hf',
               '--num-heads', 2, '--shard-gb', 4e-5)
    config = write_config(folder / 'config.py', shared_data, extra=RUN)
    zygote.train(config, '--work-dir', folder / 'run', '--seed', 5)
    zygote.train(config, '--work-dir', folder / 'two', '--seed', 5, '--engine', 'fsdp2', ranks=2)
    zygote.run('tools/merge_checkpoint.py', folder / 'two' / 'iter_4.dcp', folder / 'merged.pth')
    zygote.close()
    return folder


def tensors_of(content, prefix: str = '') -> dict[str, torch.Tensor]:
    """All tensors in nested dicts and lists, by their path."""
    if isinstance(content, torch.Tensor):
        return {prefix: content}
    items = (content.items() if isinstance(content, dict)
             else enumerate(content) if isinstance(content, (list, tuple)) else ())
    return {name: tensor for key, part in items
            for name, tensor in tensors_of(part, f'{prefix}/{key}').items()}


def converts(sources: Path, source: str):
    """The converted weights are those of the whole file."""
    expected = load_file(sources / 'flat.safetensors')

    def make(folder: Path) -> list:
        return ['convert_weights.py', folder / source, folder / 'out.safetensors',
                '--num-heads', 2]

    def check(outcome: Outcome) -> str | None:
        found = load_file(outcome.folder / 'out.safetensors')
        return None if same(found, expected) else 'other weights, without a word'
    return make, check


@pytest.mark.parametrize('name', ['flat.pth', 'flat.safetensors'])
def test_damaged_files(sources, assert_right, name):
    make, check = converts(sources, name)
    rng = random.Random(name)

    def damage(content):
        def write(folder):
            (folder / name).write_bytes(content)
            return make(folder)
        return write
    assert_right([Case('file', damage((sources / name).read_bytes()), check, must_pass=True),
                  *(Case(f'{name}: {what}', damage(content), check)
                    for _ in range(3)
                    for what, content in damaged((sources / name).read_bytes(), rng))])


@pytest.mark.parametrize('name', ['model.safetensors.index.json', 'config.json', 'a shard'])
def test_damaged_folders_of_the_hub(sources, assert_right, name):
    make, check = converts(sources, 'hub')
    rng = random.Random(name)
    files = sorted(path.name for path in (sources / 'hub').glob('model-*'))
    assert len(files) > 2

    def damage(file, content):
        def write(folder):
            shutil.copytree(sources / 'hub', folder / 'hub')
            (folder / 'hub' / file).write_bytes(content)
            return make(folder)
        return write
    file = rng.choice(files) if name == 'a shard' else name
    assert_right([Case(f'{name}: {what}', damage(file, content), check)
                  for what, content in damaged((sources / 'hub' / file).read_bytes(), rng)])


def merging_with(sources, name, content):
    """Returns what merges a sharded checkpoint, one of whose files has other content."""
    def write(folder):
        shutil.copytree(sources / 'two' / 'iter_4.dcp', folder / 'iter_4.dcp')
        (folder / 'iter_4.dcp' / name).write_bytes(content)
        return ['merge_checkpoint.py', folder / 'iter_4.dcp', folder / 'out.pth']
    return write


@pytest.mark.parametrize('name', ['.metadata', 'meta.pth', '__0_0.distcp', '__1_0.distcp'])
def test_damaged_parts_of_a_sharded_checkpoint(sources, assert_right, name):
    rng = random.Random(name)
    expected = tensors_of(torch.load(sources / 'merged.pth', weights_only=True))

    def check(outcome):
        found = tensors_of(torch.load(outcome.folder / 'out.pth', weights_only=True))
        return None if same(found, expected) else 'other weights, without a word'
    path = sources / 'two' / 'iter_4.dcp' / name
    assert_right([Case(f'.dcp, {name}: {what}', merging_with(sources, name, content), check)
                  for what, content in damaged(path.read_bytes(), rng)])


@pytest.mark.parametrize('kind', ['.pth', '.metadata', 'meta.pth', '__0_0.distcp'])
def test_auto_resume_passes_over_a_damaged_checkpoint(sources, assert_right, kind):
    """It takes the whole one beside it, and ends with the same bits."""
    rng, run = random.Random(kind), sources / ('run' if kind == '.pth' else 'two')
    ranks = 1 if kind == '.pth' else 2
    newest = 'iter_4.pth' if kind == '.pth' else f'iter_4.dcp/{kind}'
    end = state(run)

    def damage(content):
        def write(folder):
            (folder / 'run').mkdir()
            for name in ('iter_2', 'iter_4'):
                path = run / (name + Path(newest).parts[0].removeprefix('iter_4'))
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, folder / 'run' / path.name)
            (folder / 'run' / newest).write_bytes(content)
            return ['train.py', sources / 'config.py', '--work-dir', folder / 'run',
                    '--auto-resume', *(() if ranks == 1 else (
                        '--engine', 'fsdp2', '--launcher', 'pytorch'))]
        return write

    def check(outcome):
        return None if same(state(outcome.folder / 'run'), end) else 'another end'
    cases = [Case(f'--auto-resume, {kind}: {what}', damage(content), check, must_pass=True,
                  ranks=ranks) for what, content in damaged((run / newest).read_bytes(), rng)]
    assert_right(cases if ranks == 1 else rng.sample(cases, 12))  # two processes take longer


def state(run: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors after the last iteration."""
    if (run / 'iter_6.dcp').exists():
        return tensors_of(sharded_state(run / 'iter_6.dcp'))
    return torch.load(run / 'iter_6.pth', weights_only=True)['state_dict']


class Payload:
    """Runs when it is unpickled freely."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def payloads() -> dict[str, bytes]:
    """Pickles that would make the canary, or take all memory."""
    return {
        'os.system': pickle.dumps(Payload(os.system, f'touch {CANARY}')),
        'open': pickle.dumps(Payload(open, CANARY, 'w')),
        'eval': pickle.dumps(Payload(eval, f'open("{CANARY}", "w")')),
        'exec by builtins': b'cbuiltins\nexec\n(Vopen("' + CANARY.encode() + b'", "w")\ntR.',
        'a memo index of 2^30': b'\x80\x02]r\x00\x00\x00\x40.',
        'a long of 2^31 bytes': b'\x80\x02\x8b\xff\xff\xff\x7f.',
        'a string of 2^62 bytes': b'\x80\x04\x8d\x00\x00\x00\x00\x00\x00\x00\x40.',
        'a frame of 2^63 bytes': b'\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.',
        'no end': b'\x80\x02}q\x00', 'only an end': b'.',
        'deep': b'\x80\x02' + b'(' * 100000 + b'.',
        'nested': b'\x80\x02' + b']' + b']a' * 5000 + b'.',
        'nested deeper': b'\x80\x02' + b']' * 200000 + b'a' * 199999 + b'.',
        'an unknown class': b'\x80\x02cnumpy\nno_such_class\n.',
        'a number': pickle.dumps(3), 'a list': pickle.dumps([1]), 'None': pickle.dumps(None),
        'a dict': pickle.dumps({}), 'a dict of itself': b'\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.',
    }


def in_zip(data: bytes, root: str = 'archive') -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr(f'{root}/data.pkl', data)
        archive.writestr(f'{root}/version', '3\n')
        archive.writestr(f'{root}/byteorder', 'little')
    return file.getvalue()


def test_pickles_that_run_code_or_take_memory(sources, assert_right, shared_data):
    """As a file of either age, as parts of a sharded checkpoint, and as the newest in a folder."""
    def flat(content, name='flat.pth'):
        def write(folder):
            (folder / name).write_bytes(content)
            return ['convert_weights.py', folder / name, folder / 'out.safetensors']
        return write

    sharded = partial(merging_with, sources)

    def beside(content):
        def write(folder):
            shutil.copytree(sources / 'two' / 'iter_2.dcp', folder / 'run' / 'iter_2.dcp')
            shutil.copytree(sources / 'two' / 'iter_4.dcp', folder / 'run' / 'iter_4.dcp')
            (folder / 'run' / 'iter_4.dcp' / '.metadata').write_bytes(content)
            return ['train.py', sources / 'config.py', '--work-dir', folder / 'run',
                    '--auto-resume', '--total-batch', 4]
        return write

    def tested(content):
        def write(folder):
            (folder / 'iter_1.pth').write_bytes(content)
            return ['test.py', sources / 'config.py', folder / 'iter_1.pth', '--eval', 'mIoU',
                    '--work-dir', folder]
        return write
    cases = []
    for name, content in payloads().items():
        cases += [Case(f'pickle {name}, old form', flat(content), must_fail=True),
                  Case(f'pickle {name}, zip', flat(in_zip(content)), must_fail=True),
                  Case(f'pickle {name}, tested', tested(in_zip(content)), must_fail=True),
                  Case(f'pickle {name}, .metadata', sharded('.metadata', content), must_fail=True),
                  Case(f'pickle {name}, meta.pth', sharded('meta.pth', in_zip(content)),
                       must_fail=True),
                  Case(f'pickle {name}, newest .metadata', beside(content), must_pass=True)]
    assert_right(cases)


def test_contents_that_are_no_weights(sources, assert_right):
    good = InternViT6B(**SIZE).state_dict()
    name = 'blocks.0.norm1.weight'

    def without(*gone, **more):
        return {key: value for key, value in {**good, **more}.items() if key not in gone}
    contents = {
        'keys that are no strings': {**good, 3: torch.zeros(2)},
        'a key that is a tuple': {**good, ('a',): torch.zeros(2)},
        'a key that is None': {**good, None: torch.zeros(2)},
        'an empty key': {**good, '': torch.zeros(2)},
        'a key with a new line': {**good, 'a\nb': torch.zeros(2)},
        'a block beyond all': {**good, 'blocks.99999999999.norm1.weight': torch.zeros(32)},
        'a block before all': {**good, 'blocks.-1.norm1.weight': torch.zeros(32)},
        'a block without a number': {**good, 'blocks.x.norm1.weight': torch.zeros(32)},
        'a missing block': {k: v for k, v in good.items() if not k.startswith('blocks.1.')},
        'no position embedding': without('pos_embed'), 'no blocks': dict(pos_embed=torch.zeros(1)),
        '0-d': {**good, name: torch.tensor(1.)}, 'empty': {**good, name: torch.zeros(0)},
        'another shape': {**good, name: torch.zeros(7, 3)},
        '0-d position embedding': {**good, 'pos_embed': torch.tensor(1.)},
        'a position embedding that is no square': {**good, 'pos_embed': torch.zeros(1, 12, 32)},
        'fp8': {**good, name: torch.ones(32).to(torch.float8_e4m3fn)},
        'uint16': {**good, name: torch.ones(32, dtype=torch.uint16)},
        'complex': {**good, name: torch.ones(32, dtype=torch.complex64)},
        'bool': {**good, name: torch.ones(32, dtype=torch.bool)},
        'int64': {**good, name: torch.ones(32, dtype=torch.int64)},
        'sparse': {**good, name: torch.ones(32).to_sparse()},
        'quantized': {**good, name: torch.quantize_per_tensor(torch.ones(32), 1., 0, torch.qint8)},
        'expanded': {**good, name: torch.ones(1).expand(32)},
        'meta': {**good, name: torch.ones(32, device='meta')},
        'state_dict of a list': dict(state_dict=[1, 2]),
        'state_dict of itself': dict(state_dict=dict(state_dict=good)),
        'state_dict empty': dict(state_dict={}), 'empty dict': {},
        'a value of None': {**good, name: None}, 'a value of text': {**good, name: 'x'},
        'a list of weights': [good], 'a tensor': torch.zeros(3),
        'meta of a list': dict(meta=[1], state_dict=good),
        'backbone of nothing': dict(meta=dict(backbone={}), state_dict=good),
        'backbone of text': dict(meta=dict(backbone='x'), state_dict=good),
        'backbone elsewhere': dict(meta=dict(backbone=dict(path='/etc/passwd')), state_dict=good),
        'nan': {**good, name: torch.full((32,), float('nan'))},
    }
    segmentor = torch.load(sources / 'run' / 'iter_4.pth', weights_only=True)
    metas = {
        'no meta': None, 'meta of text': 'x', 'meta empty': {},
        **{f'meta.{key}={value!r}': {**segmentor['meta'], key: value}
           for key in ('iter', 'epoch', 'run', 'seed', 'CLASSES', 'PALETTE', 'config', 'hook_msgs')
           for value in (None, 'x', -1, [], [None])},
    }
    optimizers = {
        'optimizer: None': None, 'optimizer: {}': {}, 'optimizer: []': [], 'optimizer: text': 'x',
        'no groups': dict(state={}, param_groups=[]), 'state of text': {
            **segmentor['optimizer'], 'state': 'x'},
        'a parameter too many': {**segmentor['optimizer'], 'state': {
            **segmentor['optimizer']['state'], 999: {}}},
        'a parameter that is text': {**segmentor['optimizer'], 'state': {'x': {}}},
        'moments of another shape': {**segmentor['optimizer'], 'state': {
            i: {**one, 'exp_avg': torch.zeros(3)}
            for i, one in segmentor['optimizer']['state'].items()}},
        'groups of text': {**segmentor['optimizer'], 'param_groups': 'x'},
    }

    def flat(content):
        def write(folder):
            torch.save(content, folder / 'flat.pth')
            return ['convert_weights.py', folder / 'flat.pth', folder / 'out.pth']
        return write

    def resumed(content, option='--resume-from'):
        def write(folder):
            torch.save(content, folder / 'iter_4.pth')
            return ['train.py', sources / 'config.py', '--work-dir', folder / 'run', option,
                    folder / 'iter_4.pth']
        return write
    assert_right(
        [Case(f'weights: {name}', flat(content)) for name, content in contents.items()]
        + [Case(f'--load-from weights: {name}', resumed(content, '--load-from'))
           for name, content in contents.items()]
        + [Case(f'resumed: {name}', resumed({**segmentor, 'meta': meta}))
           for name, meta in metas.items()]
        + [Case(f'resumed: {name}', resumed({**segmentor, 'optimizer': content}))
           for name, content in optimizers.items()])


def test_headers_of_safetensors(sources, assert_right):
    data = (sources / 'flat.safetensors').read_bytes()
    length = struct.unpack('<Q', data[:8])[0]
    header, body = json.loads(data[8:8 + length]), data[8 + length:]
    name = next(key for key in header if key != '__metadata__')

    def packed(header, length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack('<Q', len(text) if length is None else length) + text + body

    def entry(**change):
        return packed({**header, name: {**header[name], **change}})
    contents = {
        'a length of 2^63': packed(header, 2**63), 'a length of 2^40': packed(header, 2**40),
        'a length of 0': packed(header, 0), 'no JSON': packed(b'{"a": '),
        'deep JSON': packed(b'{"a": ' + b'[' * 100000), 'a list': packed(b'[]'),
        'a shape of 2^62': entry(shape=[2**62, 4]), 'a negative shape': entry(shape=[-1, 32]),
        'a shape of text': entry(shape='x'), 'no shape': entry(shape=None),
        'an unknown dtype': entry(dtype='F128'), 'fp8': entry(dtype='F8_E4M3'),
        'offsets beyond the end': entry(data_offsets=[0, 2**50]),
        'offsets backwards': entry(data_offsets=[100, 0]),
        'negative offsets': entry(data_offsets=[-100, 0]),
        'a tensor that is text': packed({**header, name: 'x'}),
        'metadata of numbers': packed({**header, '__metadata__': {'format': 3}}),
        'a duplicate key': packed(json.dumps(header)[:-1].encode()
                                  + b', ' + json.dumps({name: header[name]})[1:].encode()),
    }

    def write(content):
        def write(folder):
            (folder / 'flat.safetensors').write_bytes(content)
            return make(folder)
        return write
    make, check = converts(sources, 'flat.safetensors')
    assert_right([Case(f'safetensors: {name}', write(content), check)
                  for name, content in contents.items()])


def test_indices_that_lead_elsewhere(sources, assert_right):
    index = json.loads((sources / 'hub' / 'model.safetensors.index.json').read_text())
    names = list(index['weight_map'])
    outside = sources / 'outside.safetensors'
    save_file({names[0]: torch.zeros(1)}, outside)

    def mapped(value, key=names[0]):
        return {**index, 'weight_map': {**index['weight_map'], key: value}}
    contents = {
        'an empty shard': mapped(''), 'a dot': mapped('.'), 'the index': mapped(
            'model.safetensors.index.json'), 'a shard outside': mapped(f'../../{outside.name}'),
        'an absolute path': mapped(str(outside)), 'a device': mapped('/dev/zero'),
        'a missing shard': mapped('model-9.safetensors'), 'a number': mapped(3),
        'None': mapped(None), 'a list': mapped(['x']), 'a null byte': mapped('a\0b'),
        'a long name': mapped('x' * 300), 'an unknown tensor': mapped(
            'model-00001-of-00003.safetensors', 'vision_model.none'),
        'no map': {}, 'an empty map': {'weight_map': {}}, 'a map of a list': {'weight_map': []},
        'only a list': [], 'text': 'x',
    }

    def write(content):
        def write(folder):
            shutil.copytree(sources / 'hub', folder / 'hub')
            (folder / 'hub' / 'model.safetensors.index.json').write_text(json.dumps(content))
            return make(folder)
        return write
    make, check = converts(sources, 'hub')
    configs = {f'config.json: {name}': content for name, content in {
        'a list': [], 'empty': {}, 'text': 'x', 'depth of text': dict(num_hidden_layers='x'),
        'depth of 10^12': dict(num_hidden_layers=10**12), 'width of -1': dict(hidden_size=-1),
        'null': None}.items()}

    def write_config_json(content):
        def write(folder):
            shutil.copytree(sources / 'hub', folder / 'hub')
            (folder / 'hub' / 'config.json').write_text(json.dumps(content))
            return make(folder)
        return write
    assert_right([Case(f'index: {name}', write(content), check)
                  for name, content in contents.items()]
                 + [Case(name, write_config_json(content), check)
                    for name, content in configs.items()])
