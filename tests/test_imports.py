"""Imports point one way: see docs/architecture.md."""
import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'mmseg_custom'
OURS = 'mmseg_custom'
FORBIDDEN = {
    'layers': ['mmcv', 'mmseg', f'{OURS}.engine', f'{OURS}.datasets', f'{OURS}.checkpoint',
                      f'{OURS}.distributed', f'{OURS}.errors'],
    'losses': ['mmcv', 'mmseg', f'{OURS}.engine', f'{OURS}.datasets', f'{OURS}.checkpoint',
                      f'{OURS}.distributed', f'{OURS}.errors', f'{OURS}.models.layers'],
    'models/backbones': [f'{OURS}.engine', f'{OURS}.datasets', f'{OURS}.distributed'],
    'models/decode_heads': [f'{OURS}.engine', f'{OURS}.datasets', f'{OURS}.distributed'],
    'models/segmentors': [f'{OURS}.engine', f'{OURS}.datasets', f'{OURS}.distributed'],
    'datasets': [f'{OURS}.models', f'{OURS}.engine', f'{OURS}.checkpoint', f'{OURS}.distributed'],
    'checkpoint': ['mmseg', f'{OURS}.engine', f'{OURS}.datasets', f'{OURS}.models.backbones'],
    'distributed': [f'{OURS}.engine', f'{OURS}.datasets', f'{OURS}.models.backbones'],
    'feature_cache': ['mmcv', 'mmseg', f'{OURS}.engine', f'{OURS}.datasets', f'{OURS}.models',
                      f'{OURS}.distributed'],
    'evaluation': [f'{OURS}.models', f'{OURS}.engine', f'{OURS}.distributed',
                   f'{OURS}.visualization'],
    'visualization': [f'{OURS}.models', f'{OURS}.engine', f'{OURS}.distributed'],
    'optim': [f'{OURS}.engine', f'{OURS}.models', f'{OURS}.datasets'],
    'engine': [f'{OURS}.doctor'],
}


def imported(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports, within functions too."""
    package = [OURS, *path.relative_to(PACKAGE).parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            names.add('.'.join([*base, *([node.module] if node.module else [])]))
    return names


@pytest.mark.parametrize('room', FORBIDDEN)
def test_imports_point_one_way(room):
    for path in (PACKAGE / room).rglob('*.py'):
        for name in imported(path):
            wrong = [f for f in FORBIDDEN[room] if name == f or name.startswith(f'{f}.')]
            assert not wrong, f'{path.relative_to(PACKAGE)} imports {name}'
