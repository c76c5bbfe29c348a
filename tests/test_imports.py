"""Imports point one way, without a circle: see docs/architecture.md.

All imports count, those within functions too.
"""
import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = 'mmseg_custom'
# From the bottom up: a room may import itself and the floors below its own.
FLOORS = [
    ['errors', 'logs', 'units', 'version', 'peak_memory', 'host_memory', 'shards', 'plugins',
     'processes', 'choices', 'missing', 'progress', 'late_imports', 'without_mmcv'],
    ['files', 'schema', 'layers', 'losses'],
    ['targets'],
    ['datasets', 'checkpoint', 'feature_cache'],
    ['models', 'optim'],
    ['distributed', 'evaluation'],
    ['deploy'],
    ['compat', 'visualization'],
    ['engine'],
    ['doctor'],
    ['__init__'],
]
# What a room must not import from outside: layers, losses and windows can be lifted out by anyone.
HEAVY = ['mmcv', 'mmseg', 'timm', 'torch', 'numpy', OURS]
LIBRARIES = {
    'choices.py': HEAVY,  # The tools load these without the package.
    'missing.py': HEAVY,
    'datasets/prepare/layouts.py': HEAVY,
    'layers': ['mmcv', 'mmseg'],
    'losses': ['mmcv', 'mmseg', 'timm'],
    'models/backbones': ['mmcv', 'mmseg'],
    'layers/conv_module.py': ['mmcv', 'mmseg', 'timm', OURS],
    'models/segmentors/windows.py': ['mmcv', 'mmseg', 'timm', OURS],
    'models/segmentors/batching.py': ['mmcv', 'mmseg'],
    'models/segmentors/image_views.py': ['mmcv', 'mmseg'],
    'models/segmentors/several_heads.py': ['mmcv', 'mmseg'],
    'models/segmentors/window_inference.py': ['mmcv', 'mmseg'],
    'distributed/precision.py': ['mmcv', 'mmseg'],
    'deploy': ['mmcv', 'mmseg', 'cv2'],
    'checkpoint': ['mmseg'],
    'feature_cache': ['mmcv', 'mmseg'],
}
# Heads may import these where a config asks for what they have: losses, samplers, further layers.
LATE = {'models/decode_heads': ['mmcv', 'mmseg']}
OF_MMSEG = ['upsampled_loss.py']  # for heads that inherit from mmseg's


@cache
def modules() -> dict[str, Path]:
    """Returns the modules of the package by name: 'mmseg_custom.engine.run' -> its file."""
    names = {}
    for path in (ROOT / OURS).rglob('*.py'):
        parts = path.relative_to(ROOT).with_suffix('').parts
        names['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return names


@cache
def imported(path: Path, late: bool = True) -> frozenset[str]:
    """Returns the absolute names that a file imports, of modules or of what they define.

    Without ``late``, imports within functions do not count.
    """
    package = path.relative_to(ROOT).parts[:-1]
    tree = ast.parse(path.read_text())
    within = set() if late else {node for function in ast.walk(tree) if isinstance(
        function, ast.FunctionDef) for node in ast.walk(function)}
    names = set()
    for node in set(ast.walk(tree)) - within:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*(package[:len(package) - node.level + 1] if node.level else []),
                    *([node.module] if node.module else [])]
            names.update('.'.join([*base, alias.name]) for alias in node.names)
    return frozenset(names)


def own_imports(name: str) -> set[str]:
    """Returns the modules of the package that one imports."""
    found = set()
    for other in imported(modules()[name]):
        while other not in modules() and '.' in other:
            other = other.rpartition('.')[0]
        if other in modules():
            found.add(other)
    return found - {name}


def room_of(name: str) -> str:
    return (name.split('.') + ['__init__'])[1]


def floor_of(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize('name', sorted(modules()))
def test_no_import_goes_up_or_across(name):
    room = room_of(name)
    for other in own_imports(name):
        there = room_of(other)
        assert there == room or floor_of(there) < floor_of(room), f'{name} imports {other}'


def test_no_circle():
    """Modules are taken away whose imports are gone; a circle is what is left."""
    left = {name: own_imports(name) for name in modules()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left


@pytest.mark.parametrize('place', LIBRARIES)
def test_rooms_without_libraries(place):
    path = ROOT / OURS / place
    for file in path.rglob('*.py') if path.is_dir() else [path]:
        for name in imported(file):
            assert name.split('.')[0] not in LIBRARIES[place], f'{file} imports {name}'


@pytest.mark.parametrize('place', LATE)
def test_rooms_that_import_libraries_where_they_are_used(place):
    for file in (ROOT / OURS / place).rglob('*.py'):
        if file.name not in OF_MMSEG:
            for name in imported(file, late=False):
                assert name.split('.')[0] not in LATE[place], f'{file} imports {name}'
