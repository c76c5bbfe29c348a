"""Compilation of a backbone's blocks by torch.compile, and what it needs on the machine.

B batch, N tokens, D width.
"""
import importlib.util
import os
import shutil
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from mmseg.utils import get_root_logger
from timm.layers.drop import DropPath
from torch import nn

from ..checkpoint.user_cache import cache_folder
from ..errors import InputError

CACHE = 'TORCHINDUCTOR_CACHE_DIR'  # torch's variable, also for the folder of Triton's kernels
EAGER_RUNS = 2  # of a shape in evaluation, before it is worth compiling
MOST_SHAPES = 16  # that are compiled; a graph of the 6B block takes seconds to a minute


def missing_for(device: str) -> str | None:
    """Returns what keeps torch from compiling kernels for a device, with the way out.

    On a GPU Triton builds a small C library for Python; on the CPU the kernels are C++.

    Args:
        device: 'cuda' or 'cpu'.
    """
    compilers = ('gcc', 'clang') if device == 'cuda' else ('g++', 'clang++')
    variable = 'CC' if device == 'cuda' else 'CXX'
    if not (os.environ.get(variable) or any(map(shutil.which, compilers))):
        return (f'this machine has no {"C" if device == "cuda" else "C++"} compiler '
                f'({", ".join(compilers)}, or one that the environment variable {variable} '
                f'names): install {compilers[0]}')
    header = os.path.join(sysconfig.get_path('include'), 'Python.h')
    if not os.path.exists(header):
        return f'{header} is missing: install the headers of Python (python3-dev)'
    if device == 'cuda' and importlib.util.find_spec('triton') is None:
        return 'Triton is missing: pip install triton'
    return None


def require_compiler(key: str) -> None:
    """Checks that kernels can be compiled for the GPU.

    Args:
        key: Setting of the config that has kernels compiled, for the message.

    Raises:
        InputError: If something is missing for that.
    """
    if (missing := missing_for('cuda')) is not None:
        raise InputError(f'{key} compiles kernels for the GPU, and {missing}, or change the '
                         'setting')


def compile_blocks(blocks: Sequence[nn.Module], device: str,
                   backbone: nn.Module | None = None) -> None:
    """Compiles the forwards of blocks; compiled modules would have other parameter names.

    Where nothing can be compiled, one line of the log says why, and the blocks stay as they are.

    Drop path stays outside: its probability is a constant of each block, and would make a graph of
    its own for each, up to torch's limit, beyond which nothing is compiled. Where some blocks have
    it, all get it, the first one at 0. Torch runs the latest graph that fits; with two kinds of
    blocks it could recompute an activation by another graph than it came from, and fail.

    Args:
        blocks: Blocks in the order in which they run.
        device: Device that they will run on, 'cuda' or 'cpu'.
        backbone: Module that is in training mode where crops of a training come, also for frozen
            blocks; default: there is none.
    """
    if (missing := missing_for(device)) is not None:
        get_root_logger().warning('compile: the blocks stay eager, since %s', missing)
        return
    _keep_cache()
    if any(isinstance(child, DropPath) for block in blocks for child in block.modules()):
        for block in blocks:
            if isinstance(block.drop_path, nn.Identity):
                block.drop_path = DropPath(0.0)
            block.drop_path.forward = torch.compiler.disable(block.drop_path.forward)
    if blocks:
        CompiledBlocks(blocks, backbone)


def _keep_cache() -> None:
    """Has torch keep what it compiled in the user's cache folder; its own default is in /tmp."""
    folder = os.path.join(cache_folder(), 'compiled')
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:  # a home that cannot be written to
        return
    os.environ.setdefault(CACHE, folder)


class CompiledBlocks:
    """Runs equal blocks compiled, by one graph for each shape of their tokens.

    In training a shape is compiled when it first comes: crops have one, a resumed run computes as
    the whole one did, and what is recomputed must come from the graph that it first came from. In
    evaluation it is compiled in its third run, so that the single windows by which the window batch
    is measured, and images of sizes of their own, do not wait for a compiler.

    Args:
        blocks: Blocks in the order in which they run.
        backbone: See :func:`compile_blocks`.
    """

    def __init__(self, blocks: Sequence[nn.Module], backbone: nn.Module | None = None):
        from torch._dynamo.exc import TorchDynamoException  # takes seconds to import
        self._backbone = backbone
        # The first block that a shape came to, which counts its runs: tokens of a head join late.
        self._first: dict[tuple, nn.Module] = {}
        self._failure = TorchDynamoException  # what the compiler raises, unlike what blocks do
        self._runs: Counter[tuple] = Counter()  # by shape
        self._compiled: set[tuple] = set()
        self._gave_up = False
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit,
                                                   2 * MOST_SHAPES)
        for block in blocks:
            block.forward = partial(self._run, block, block.forward,
                                    torch.compile(block.forward, dynamic=False))

    def _run(self, block: nn.Module, eager: Callable, compiled: Callable, *args, **kwargs):
        """Runs one of two forwards of a block: the compiled one where that pays."""
        key = _shape_of(block, args)
        if self._first.setdefault(key, block) is block:
            self._runs[key] += 1
        if self._gave_up or not self._pays(key):
            return eager(*args, **kwargs)
        try:
            if key in self._compiled:
                return compiled(*args, **kwargs)
            return self._compile(key, compiled, args, kwargs)
        except self._failure as error:
            self._gave_up = True
            get_root_logger().warning('compile: the blocks stay eager, since compiling failed: %s',
                                      _first_line(error))
            return eager(*args, **kwargs)

    def _pays(self, key: tuple) -> bool:
        if key in self._compiled:
            return True
        if len(self._compiled) >= MOST_SHAPES:
            return False
        trains = torch.is_grad_enabled() or (self._backbone is not None
                                             and self._backbone.training)
        return trains or self._runs[key] > EAGER_RUNS

    def _compile(self, key: tuple, compiled: Callable, args: tuple, kwargs: dict):
        """Runs a shape of tokens for the first time, and logs how long that took."""
        from torch._dynamo.utils import counters
        hits, misses = (counters['inductor'][f'fxgraph_cache_{name}'] for name in ('hit', 'miss'))
        start = time.perf_counter()
        with _backward_too():
            out = compiled(*args, **kwargs)
        self._compiled.add(key)
        found = counters['inductor']['fxgraph_cache_hit'] - hits
        new = counters['inductor']['fxgraph_cache_miss'] - misses
        origin = ('from a warm cache' if found and not new else
                  f'kept in {os.environ.get(CACHE, "the cache of torch")}')
        get_root_logger().info('compile: a block for tokens %s%s: %.1f s, %s', key[0][0],
                               ' with autograd' if key[1] else '', time.perf_counter() - start,
                               origin)
        return out


def _backward_too() -> AbstractContextManager:
    """Has backward passes compiled with their forward passes, where failures can be caught.

    Older versions of PyTorch compile them in ``loss.backward()``.
    """
    config = torch._functorch.config
    name = 'force_non_lazy_backward_lowering'
    return config.patch(name, True) if hasattr(config, name) else nullcontext()


def _shape_of(block: nn.Module, args: tuple) -> tuple:
    """Returns what a graph depends on: shapes, autograd and the mode of the block."""
    tensors = [x for x in args if torch.is_tensor(x)]
    return (tuple(tuple(x.shape) for x in tensors), torch.is_grad_enabled(), block.training,
            any(x.requires_grad for x in tensors))


def _first_line(error: BaseException) -> str:
    """Returns type and message of what an error of torch's compiler stands for."""
    error = getattr(error, 'inner_exception', error)
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0] if lines else ""}'
