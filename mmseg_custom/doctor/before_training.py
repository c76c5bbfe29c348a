"""Decides before a training starts how many blocks it recomputes, where ``engine`` leaves it open.

The prediction runs in a process of its own: it simulates process groups beside the real one, logs,
and loads what a training has no use for, while nothing of it, not even a random number, may change
the run.
"""
import logging
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context

import torch
from mmcv import Config
from mmcv.runner import get_dist_info
from mmcv.utils import import_modules_from_strings
from mmseg.utils import get_root_logger

from ..distributed.collectives import broadcast_from_rank0
from ..distributed.options import Engine
from ..distributed.topology import find_topology, is_unresolved, least_memory, resolve_topology
from ..engine.build import build_network, compute_dtype
from ..engine.run import Run
from ..errors import InputError
from ..logs import saying
from ..processes import end_with_parent
from .memory import Traces
from .recomputation import Recomputation
from .run_kind import recomputes, type_of
from .run_shape import RunShape, run_shape_of


def decide_recomputation(run: Run) -> Run:
    """Returns a run whose number of recomputed blocks is decided; called on all ranks.

    The memory of the smallest GPU decides, so that a resumed run, which sees the same GPUs, decides
    alike. Were they others, the results would still be the same bit by bit: recomputation gives the
    values that were there before.

    Raises:
        InputError: If the memory cannot be predicted.
    """
    engine, cfg = run.engine, run.cfg
    if not engine.recomputes_on_demand or not recomputes(cfg):
        return run
    if run.device != 'cuda':
        _log('all blocks are recomputed: on the CPU no memory is predicted for this')
        return replace(run, engine=replace(engine, checkpoint_every=1))
    shape = run_shape_of(run, least_memory())
    engine = replace(engine, type=type_of(cfg, shape, engine))
    if engine.type == 'fsdp2' and is_unresolved(engine):
        topology, model = find_topology(run.device), build_network(cfg, on_meta=True)
        engine = resolve_topology(engine, model, topology,
                                  compute_dtype(cfg, model) or torch.float32, cfg.optimizer)
        shape = replace(shape, per_node=max(topology.sizes))
    chosen: Recomputation | InputError | None = None
    with saying('predicting the memory of a step'):
        if get_dist_info()[0] == 0:
            chosen = _predict(cfg, shape, engine)
        chosen = broadcast_from_rank0(chosen)
    if isinstance(chosen, InputError):  # on all ranks, or the others would wait for rank 0
        raise chosen
    assert chosen is not None
    _log(f'{chosen} (engine.checkpoint_blocks={chosen.blocks})')
    return replace(run, engine=engine.with_recomputed(chosen.blocks))


def _log(decision: str) -> None:
    get_root_logger().info("engine.checkpoint_every='auto': %s", decision)


def _predict(cfg: Config, shape: RunShape, engine: Engine) -> Recomputation | InputError:
    """Chooses the number of blocks in a process of its own."""
    with ProcessPoolExecutor(1, get_context('spawn'), end_with_parent, (os.getpid(),)) as pool:
        try:
            return pool.submit(_choose, cfg, shape, engine).result()
        # Whatever a network raises on fake tensors, or its own code on the way to this process.
        except (Exception, BrokenProcessPool) as error:
            reason = (str(error).strip().splitlines() or [repr(error)])[0]
            return InputError(
                f"engine.checkpoint_every='auto': the memory of a step cannot be predicted "
                f'({reason}): give the number of recomputed blocks, engine.checkpoint_blocks, or '
                'engine.checkpoint_every=1 for all')


def _choose(cfg: Config, shape: RunShape, engine: Engine) -> Recomputation:
    """Chooses the number of blocks to be recomputed."""
    get_root_logger(log_level=logging.ERROR)
    if cfg.get('custom_imports'):  # a plugin's classes are registered when they are imported
        import_modules_from_strings(**cfg.custom_imports)
    return Traces(cfg, shape).choose(engine)
