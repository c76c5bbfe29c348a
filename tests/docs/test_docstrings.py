"""Docstrings of the package come out right in the API pages, and say which errors are raised."""
import ast
import re
import textwrap
from collections.abc import Iterator

import pytest
from helpers.commands import ROOT
from helpers.docs import script

griffe = pytest.importorskip('griffe', reason='requirements/docs.txt is not installed')
roles = script('roles')
OURS = {'InputError', 'SaveError'}


@pytest.fixture(scope='module')
def package():
    return griffe.load('mmseg_custom', search_paths=[str(ROOT)], allow_inspection=False,
                       docstring_parser='google')


def documented(item) -> Iterator:
    """Yields the public modules, classes and functions that have a docstring."""
    for member in item.members.values():
        if not member.is_alias and not member.name.startswith('_'):
            if member.docstring:
                yield member
            yield from documented(member)


def raises(function) -> bool:
    """Whether a function itself raises one of our errors, not one that it defines."""
    body = ast.parse(textwrap.dedent(function.source)).body[0].body
    while body:
        node = body.pop()
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            if getattr(node.exc.func, 'id', None) in OURS:
                return True
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            body += ast.iter_child_nodes(node)
    return False


def test_errors_are_named(package):
    silent = [function.path for function in documented(package) if function.is_function
              and not re.search('rais|refus', function.docstring.value, re.IGNORECASE)
              and raises(function)]
    assert not silent, f'without a section "Raises": {silent}'


def test_roles_and_results_come_out_right(package, caplog):
    roles.walk(package, package)
    assert not caplog.messages
    # "Returns: JSON: with ..." takes JSON for a name.
    wrong = [f'{item.path}: {result.name}' for item in documented(package)
             for section in item.docstring.parse('google', warnings=False)
             if section.kind.value in ('returns', 'yields') for result in section.value
             if result.name]
    assert not wrong


@pytest.mark.parametrize('where, name, expected', [
    ('engine.run', '.config.resolve_config', 'engine.config.resolve_config'),
    ('doctor.depth', '..errors.InputError', 'errors.InputError'),
    ('layers.block.Block', '.attention.Attention', 'layers.attention.Attention'),
    ('checkpoint', '.segmentor.load_segmentor', 'checkpoint.segmentor.load_segmentor'),
    ('layers.block', 'LayerScale', 'layers.block.LayerScale'),
    ('layers.block', 'no_such_name', None)])
def test_roles_of_docstrings_are_resolved_like_imports(where, name, expected, package):
    found = roles.resolve(package, package[where], name)
    assert found == (expected and f'mmseg_custom.{expected}')
