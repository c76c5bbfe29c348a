"""Which graphs are compiled, and what happens where none can be."""
import os
import shutil
import sysconfig
from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from mmseg_custom.checkpoint.user_cache import cache_folder
from mmseg_custom.distributed import compiler
from mmseg_custom.distributed.compiler import compile_blocks, missing_for, require_compiler
from mmseg_custom.errors import InputError
from mmseg_custom.layers.block import Block

D = 32


@pytest.fixture
def graphs(monkeypatch) -> CompileCounter:
    """Counts what is compiled, without compiling it to machine code."""
    counter = CompileCounter()
    torch._dynamo.reset()
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend=counter))
    monkeypatch.setattr(compiler, 'missing_for', lambda device: None)
    monkeypatch.delenv(compiler.CACHE, raising=False)
    return counter


def compiled(depth: int = 3, backbone=None) -> torch.nn.Sequential:
    torch.manual_seed(0)
    blocks = torch.nn.Sequential(*(Block(D, 2) for _ in range(depth)))
    compile_blocks(list(blocks), 'cpu', backbone)
    return blocks


def test_one_graph_serves_equal_blocks(graphs):
    blocks, x = compiled(), torch.randn(2, 5, D, requires_grad=True)
    names = list(blocks.state_dict())
    for _ in range(2):
        blocks(x).sum().backward()
    assert graphs.frame_count == 1 and list(blocks.state_dict()) == names
    assert all(p.grad is not None for p in blocks.parameters())


@torch.no_grad()
def test_a_shape_without_autograd_is_compiled_when_it_comes_again_and_again(graphs):
    blocks = compiled().eval()
    for batch in (1, 1, 4, 4):
        blocks(torch.randn(batch, 5, D))
    assert graphs.frame_count == 0
    for _ in range(3):
        blocks(torch.randn(4, 5, D))
    assert graphs.frame_count == 1


@torch.no_grad()
def test_tokens_that_join_late_are_counted_where_they_do(graphs):
    *_, third, fourth = compiled(depth=4).eval()
    x, mask = torch.randn(2, 5, D), torch.ones(2, 1, 5, 5, dtype=torch.bool)
    for run, frames in enumerate([0, 0, 1, 1], start=1):
        fourth(third(x))
        assert graphs.frame_count == frames, run
    for _ in range(3):
        fourth(third(x, mask), mask)
    assert graphs.frame_count == 2


@torch.no_grad()
def test_crops_of_a_frozen_training_are_compiled_at_once(graphs):
    """Else the first iterations of a resumed run would compute otherwise than the whole one."""
    backbone = torch.nn.Module().train()
    blocks = compiled(backbone=backbone).eval()
    blocks(torch.randn(2, 5, D))
    assert graphs.frame_count == 1
    backbone.eval()
    blocks(torch.randn(3, 5, D))
    assert graphs.frame_count == 1


@torch.no_grad()
def test_shapes_beyond_a_number_are_not_compiled(graphs, monkeypatch):
    monkeypatch.setattr(compiler, 'MOST_SHAPES', 2)
    blocks = compiled(depth=1).eval()
    for tokens in range(4, 9):
        for _ in range(4):
            blocks(torch.randn(1, tokens, D))
    assert graphs.frame_count == 2


def test_failing_compilations_leave_eager_blocks_and_a_line(graphs, monkeypatch, caplog):
    def fail(graph, inputs):
        raise OSError('no space left on device\nand more')

    monkeypatch.setattr(torch, 'compile', partial(torch.compile.func, backend=fail))
    blocks, x = compiled(), torch.randn(2, 5, D)
    found = [blocks(x) for _ in range(2)]
    torch.manual_seed(0)
    plain = torch.nn.Sequential(*(Block(D, 2) for _ in range(3)))(x)
    assert torch.equal(found[0], plain) and torch.equal(found[1], plain)
    lines = [line for line in caplog.messages if 'compiling failed' in line]
    assert lines == ['compile: the blocks stay eager, since compiling failed: OSError: no space '
                     'left on device']


def test_errors_of_a_block_are_not_taken_for_those_of_the_compiler(graphs):
    with pytest.raises(Exception, match='shape'):
        compiled()(torch.randn(2, 5, D + 1))


def test_a_machine_without_a_compiler_has_eager_blocks(monkeypatch, caplog):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    monkeypatch.delenv('CXX', raising=False)
    block = Block(D, 2)
    compile_blocks([block], 'cpu')
    assert 'forward' not in vars(block)
    assert 'compile: the blocks stay eager, since this machine has no C++ compiler' in caplog.text


def test_the_compilers_cache_is_kept(graphs, monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    compiled()
    assert os.environ[compiler.CACHE] == os.path.join(cache_folder(), 'compiled')
    assert os.path.isdir(os.environ[compiler.CACHE])
    monkeypatch.setenv(compiler.CACHE, '/elsewhere')
    compiled()
    assert os.environ[compiler.CACHE] == '/elsewhere'


def test_what_compiling_for_a_gpu_needs(monkeypatch, tmp_path):
    include = tmp_path / 'include'
    monkeypatch.delenv('CC', raising=False)
    monkeypatch.setattr(sysconfig, 'get_path', lambda name: str(include))
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    monkeypatch.setattr(compiler.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match='optimizer.type .*no C compiler .*: install gcc'):
        require_compiler('optimizer.type')
    for found in ('gcc', 'clang'):
        monkeypatch.setattr(shutil, 'which', lambda name, found=found: name == found)
        with pytest.raises(InputError, match=f'{include}/Python.h is missing: .*python3-dev'):
            require_compiler('optimizer.type')
    include.mkdir()
    (include / 'Python.h').touch()
    assert 'Triton is missing' in missing_for('cuda')
    monkeypatch.setattr(compiler.importlib.util, 'find_spec', lambda name: name)
    require_compiler('optimizer.type')
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    monkeypatch.setenv('CC', '/opt/cc')
    require_compiler('optimizer.type')
