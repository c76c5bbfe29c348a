"""The one place that makes blocks faster, as ``engine=dict(...)`` of a config says."""
from collections.abc import Sequence

from mmseg.utils import get_root_logger
from torch import nn

from ..errors import InputError
from ..models.backbone_options import traits_of
from ..models.fixed_batches import FixedBatches
from .casts import ParameterCasts
from .compiler import compile_blocks
from .cuda_graphs import GraphedBlocks
from .options import Engine
from .precision import heads


def accelerate(model: nn.Module, blocks: Sequence[nn.Module], engine: Engine, device: str,
               sharded: bool = False) -> None:
    """Compiles and captures the blocks of a segmentor, where that is asked for.

    Must come after the precision policy and before any wrapper. Batches without autograd are then
    padded to few sizes: see :class:`..models.fixed_batches.FixedBatches`. Blocks that a head names
    by ``equal_blocks`` are compiled, too, but not captured.

    Args:
        model: Segmentor, not wrapped.
        blocks: Its blocks up to the last one that is read.
        engine: Options.
        device: Device that it will compute on, 'cuda' or 'cpu'.
        sharded: Whether its weights will be sharded.

    Raises:
        InputError: If CUDA graphs are asked for where they cannot work.
    """
    obstacle = _obstacle_to_graphs(model.backbone, blocks, device, sharded)
    if engine.cuda_graphs and obstacle and device == 'cuda':
        raise InputError(f'engine.cuda_graphs=True: {obstacle}: leave it out')
    if engine.is_on('cuda_graphs') and obstacle:
        get_root_logger().info('engine.cuda_graphs: without effect: %s', obstacle)
    captures = engine.is_on('cuda_graphs') and not obstacle
    if engine.is_on('compile'):
        if blocks:
            compile_blocks(blocks, device, model.backbone)
        else:
            get_root_logger().info('engine.compile: the backbone stays as it is: it has no blocks '
                                   'that can be compiled one by one')
        for head in heads(model):
            if of_head := _blocks_of_head(head):
                compile_blocks(of_head, device)
    if (engine.is_on('compile') or captures) and hasattr(model.backbone, 'wrap_blocks'):
        model.backbone.wrap_blocks(FixedBatches(GraphedBlocks() if captures else None))


def _blocks_of_head(head: nn.Module) -> list[nn.Module]:
    """Returns the equal blocks that a head names, unless some of their layers are cast."""
    blocks = list(getattr(head, 'equal_blocks', ()))
    cast = any(ParameterCasts.of(module) for block in blocks for module in block.modules())
    return [] if cast else blocks


def _obstacle_to_graphs(backbone: nn.Module, blocks: Sequence[nn.Module], device: str,
                        sharded: bool) -> str | None:
    """Returns why the blocks cannot be run as CUDA graphs."""
    if device != 'cuda':
        return 'the run is on the CPU'
    if not blocks:
        return 'the backbone has no blocks'
    if traits_of(backbone).changes_tokens:
        return 'the adapter changes the tokens between the blocks'
    if sharded:
        return 'the blocks are sharded, and gathered into other memory each time'
    if any(parameter.requires_grad for block in blocks for parameter in block.parameters()):
        return 'the blocks are trained, and a graph holds a forward pass of frozen ones alone'
    return None
