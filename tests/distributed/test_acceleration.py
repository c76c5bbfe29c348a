"""What is compiled and captured, with `engine.fast` and without, and where that cannot work."""
import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmseg.models import build_segmentor

from mmseg_custom.distributed import acceleration
from mmseg_custom.distributed.acceleration import accelerate
from mmseg_custom.distributed.cuda_graphs import GraphedBlocks
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.errors import InputError
from mmseg_custom.models.decode_heads.plain_mask_head import PlainMaskHead


@pytest.fixture
def compiled(monkeypatch) -> list:
    """Devices that blocks are compiled for."""
    found: list[str] = []
    monkeypatch.setattr(acceleration, 'compile_blocks',
                        lambda blocks, device, backbone: found.append(device))
    return found


def accelerated(device: str = 'cpu', freeze: bool = True, sharded: bool = False, **options):
    model = build_segmentor(segmentor_config(freeze_vit=freeze))
    accelerate(model, list(model.backbone.blocks), Engine.of(options), device, sharded)
    return model.backbone


def test_nothing_is_on_by_default(compiled):
    backbone = accelerated('cuda')
    assert compiled == [] and backbone._wrapper is None


def test_fast_turns_on_what_is_not_set(compiled):
    backbone = accelerated('cuda', fast=True)
    assert compiled == ['cuda'] and isinstance(backbone._wrapper._inner, GraphedBlocks)
    backbone = accelerated('cuda', fast=True, compile=False, cuda_graphs=False)
    assert compiled == ['cuda'] and backbone._wrapper is None


@pytest.mark.parametrize('device, freeze, sharded, words', [
    ('cpu', True, False, 'the run is on the CPU'),
    ('cuda', False, False, 'the blocks are trained'),
    ('cuda', True, True, 'the blocks are sharded')])
def test_graphs_that_cannot_work(compiled, caplog, device, freeze, sharded, words):
    caplog.set_level('INFO')
    backbone = accelerated(device, freeze, sharded, fast=True)
    assert backbone._wrapper._inner is None  # padded, for the compiled blocks
    assert f'engine.cuda_graphs: without effect: {words}' in caplog.text
    if device == 'cuda':
        with pytest.raises(InputError, match=f'engine.cuda_graphs=True: {words}.*: leave it out'):
            accelerated(device, freeze, sharded, cuda_graphs=True)
    else:
        accelerated(device, freeze, sharded, cuda_graphs=True)


@pytest.mark.parametrize('head_dtype', [torch.float32, torch.bfloat16])
def test_equal_blocks_of_a_head_are_compiled_unless_they_are_cast(monkeypatch, head_dtype):
    found: list[list] = []
    monkeypatch.setattr(acceleration, 'compile_blocks',
                        lambda blocks, *_: found.append(list(blocks)))
    model = build_segmentor(segmentor_config(freeze_vit=True))
    model.decode_head = PlainMaskHead(16, 5, 16, 0, None, num_heads=2, num_blocks=2)
    apply_precision(model, torch.bfloat16, 'cpu', head_dtype=head_dtype)
    of_backbone = list(model.backbone.blocks)
    accelerate(model, of_backbone, Engine.of(dict(compile=True)), 'cpu')
    of_head = [list(model.decode_head.blocks)] if head_dtype == torch.float32 else []
    assert found == [of_backbone, *of_head]


def test_the_cpu_launches_no_graphs():
    """The blocks are run as they are."""
    blocks, tokens = GraphedBlocks(), torch.randn(1, 2, 3)
    for _ in range(6):
        assert blocks(lambda x: [x], tokens)[0] is tokens
