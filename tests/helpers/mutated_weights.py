"""Mutated files of weights of every form, opened by every loader within limits of time and memory.

    python tests/helpers/mutated_weights.py FOLDER SEED COUNT

makes COUNT mutations of each file in FOLDER's ``whole`` and prints a line for each that ends
neither right nor in :class:`InputError`. Its own address space is limited to what it has plus a
gigabyte.
"""
import itertools
import json
import logging
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

import mmseg_custom  # noqa: F401 - registers, before mmseg
from mmseg_custom.checkpoint import (
    load_segmentor,
    newest_whole,
    open_checkpoint,
    read_checkpoint,
    save_sharded,
)
from mmseg_custom.checkpoint.content import check_optimizer, check_progress
from mmseg_custom.checkpoint.convert import convert
from mmseg_custom.checkpoint.merge import merge
from mmseg_custom.errors import InputError

from helpers.tiny_networks import Segmentor, same, tiny  # isort: skip

SECONDS = 20  # most for one file, on a machine that others use too
BYTES = 1 << 30  # more than the process has at its start


def write_whole(folder: Path) -> None:
    """Writes a file of each form: backbones, and checkpoints of a segmentor with its optimizer."""
    folder.mkdir()
    backbone = tiny().bfloat16().state_dict()
    torch.save(backbone, folder / 'flat.pth')
    torch.save(backbone, folder / 'old.pth', _use_new_zipfile_serialization=False)
    convert(str(folder / 'flat.pth'), str(folder / 'ours.safetensors'), 'safetensors')
    convert(str(folder / 'flat.pth'), str(folder / 'hub'), 'hf', shard_bytes=100_000, num_heads=2)
    save_file({name: tensor.contiguous() for name, tensor in backbone.items()},
              folder / 'theirs.safetensors')
    model = Segmentor()
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    meta = dict(iter=1, epoch=1, seed=0, CLASSES=['a', 'b', 'c'], PALETTE=[[0, 0, 0]] * 3)
    torch.save(dict(meta=meta, state_dict=model.state_dict(), optimizer=optimizer.state_dict()),
               folder / 'iter_1.pth')
    save_sharded(model, str(folder / 'iter_2.dcp'), optimizer, meta)
    torch.save(dict(module=model.state_dict(), buffer_names=[], optimizer=None, ds_version='0.8.0',
                    dp_world_size=2, mp_world_size=1, ds_config={}, **meta),
               folder / 'deepspeed.pth')


VALUES = [
    None, True, -1, 0, 2**63, 1e308, float('nan'), '', 'x\ny', 'x' * 5000, b'\xff', [], {}, (),
    {1: 2}, {'sha256': 'x'}, [[[[]]]], range(10**15), torch.tensor(1.0), torch.zeros(0),
    torch.zeros(3, dtype=torch.uint16), torch.zeros(2, 3).to(torch.float8_e4m3fn),
    torch.zeros(2).to_sparse(), torch.zeros(1).expand(10**9), torch.zeros(2, 2, device='meta'),
    torch.zeros(2, dtype=torch.complex64), torch.Size([1]), torch.float32]
KEYS = [
    '', 1, None, (1,), b'x', 'x\ny', 'blocks.99999999999.norm1.weight', 'blocks.2²2.norm1.weight',
    'blocks.-1.norm1.weight', 'backbone.blocks.99999999.ls1.gamma', 'a' * 10**5, '.', '..', 'meta',
    'backbone', 'state_dict', 'optimizer', 'param_groups', 'decode_head.', 'pos_embed']
NAMES = ['', '.', '..', '../whole', '/etc/passwd', 'config.json', 'x\ny', 5, None, [], {},
         'model.safetensors.index.json']
HEADER_VALUES = [None, -1, 2**63, '', 'F8_E4M3', 'U16', 'F4', [], {}, [2**40, 2**40], [0, 2**62],
                 '{"a": 1}']


def mutate_bytes(path: Path, rng: random.Random) -> None:
    """Flips a bit, overwrites, cuts out, or cuts short, mostly at the ends, which describe."""
    data = bytearray(path.read_bytes())
    place = rng.choice([rng.randrange(len(data)), rng.randrange(min(2000, len(data))),
                        len(data) - 1 - rng.randrange(min(4000, len(data)))])
    kind = rng.randrange(5)
    if kind == 0:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[place:place + rng.choice([1, 4, 8])] = rng.choice([b'\xff', b'\0', b'\x7f']) * 8
    elif kind == 2:
        data[place:place + rng.choice([16, 4096])] = bytes(rng.choice([16, 4096]))  # a hole
    elif kind == 3:
        del data[place:place + rng.choice([1, 7, 64])]
    else:
        del data[place:]
    path.write_bytes(data)


def mutate_content(path: Path, rng: random.Random) -> None:
    """Changes a value or a key anywhere in what torch.save wrote."""
    content = torch.load(path, weights_only=True)
    parts, todo = [content], [content]
    while todo:
        value = todo.pop()
        inner = list(value.values()) if isinstance(value, dict) else list(value)
        parts += [part for part in inner if isinstance(part, (dict, list)) and part]
        todo += [part for part in inner if isinstance(part, (dict, list)) and part]
    part = rng.choice(parts)
    if isinstance(part, list):
        part[rng.randrange(len(part))] = rng.choice(VALUES)
    else:
        key = rng.choice(list(part))
        value = part.pop(key) if rng.randrange(2) else part[key]
        part[rng.choice([key, rng.choice(KEYS)])] = rng.choice([value, rng.choice(VALUES)])
    torch.save(content, path)


def mutate_json(path: Path, rng: random.Random) -> None:
    """Changes a value of a JSON file, or puts a shard's name that leads elsewhere."""
    content = json.loads(path.read_text())
    part = content.get('weight_map', content)
    part[rng.choice([*part, 'a', 'blocks.99999999999.norm1.weight'])] = rng.choice(NAMES)
    if rng.randrange(5) == 0:
        content = rng.choice([[], None, 5, {'weight_map': rng.choice([[], {}, 5, [['a', 'b']]])}])
    path.write_text(rng.choice([json.dumps(content), '[' * 10**5]) if rng.randrange(9) == 0
                    else json.dumps(content))


def mutate(path: Path, rng: random.Random) -> bool:
    """Mutates a file, or one of a folder; returns whether sums must show any change of weights."""
    file = rng.choice(sorted(path.iterdir())) if path.is_dir() else path
    ways: list[Callable] = [mutate_bytes]
    if file.suffix == '.pth' and file.name != 'old.pth':
        ways += [mutate_content] * 2
    if file.suffix == '.json':
        ways += [mutate_json] * 3
    if file.suffix == '.safetensors':
        ways += [mutate_header]
    if file.name == '.metadata':
        ways += [mutate_metadata] * 3
    way = rng.choice(ways)
    way(file, rng)
    return way is mutate_bytes and path.name not in ('old.pth', 'theirs.safetensors')


def mutate_header(path: Path, rng: random.Random) -> None:
    """Changes a value in the header of a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8:8 + length])
    entry = rng.choice([header, *header.values()])
    entry[rng.choice([*entry, 'a'])] = rng.choice(HEADER_VALUES)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, 'little') + text + data[8 + length:])


def mutate_metadata(path: Path, rng: random.Random) -> None:
    """Mutates the metadata of a folder that has no sum of it, as earlier ones."""
    header = torch.load(path.with_name('meta.pth'), weights_only=True)
    del header['crc32 of .metadata']
    torch.save(header, path.with_name('meta.pth'))
    mutate_bytes(path, rng)


def use(path: Path, target: Path) -> torch.nn.Module:
    """Opens a file as all loaders do; returns the model that it fills."""
    if path.name.startswith('iter_'):
        newest_whole(str(path.parent))
        checkpoint = open_checkpoint(str(path))
        read_checkpoint(str(path))
        check_progress(checkpoint.meta, str(path))
        check_optimizer(checkpoint.optimizer, str(path))
        model = Segmentor()
        load_segmentor(model, checkpoint)
        merge(str(path), str(target / 'merged.safetensors'))
    else:
        model = tiny(pretrained=str(path))
        convert(str(path), str(target / 'converted.pth'), 'pth')
        convert(str(path), str(target / 'converted'), 'hf', num_heads=2)
    return model


def stop(*_: object) -> None:
    raise TimeoutError('it takes too long')


def main(folder: Path, seed: int, count: int) -> None:
    """Mutates, uses and reports."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter('ignore')
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    limit = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, stop)
    rng, ends, work = random.Random(seed), Counter(), folder / f'mutated_{seed}'
    longest = 0.0
    expected: dict[str, dict] = {}
    for path, number in itertools.product(sorted((folder / 'whole').iterdir()), range(count + 1)):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        target = work / path.name
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, target)
        if not number:
            expected[path.name] = use(target, work).state_dict()
            continue
        has_sums = mutate(target, rng)
        began = time.monotonic()
        signal.alarm(SECONDS)
        try:
            model = use(target, work)
            assert not has_sums or same(model.state_dict(), expected[path.name]), 'other weights'
            ends['right'] += 1
        except InputError as error:
            one_line = len(str(error).splitlines()) == 1 and len(str(error)) < 3000
            ends['refused' if one_line else 'wrong'] += 1
            if not one_line:
                print(f'WRONG {path.name} {number}: {str(error)[:300]!r}')
        except Exception as error:
            ends['wrong'] += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            print(f'WRONG {path.name} {number}: {type(error).__name__}: {str(error)[:200]!r} in '
                  f'{place.filename}:{place.lineno}')
        finally:
            signal.alarm(0)
        longest = max(longest, time.monotonic() - began)
    print(f'{dict(ends)}, the longest took {longest:.1f} s')


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
