"""The values of options that follow `engine.fast`, and the line of the log that names them."""
import pytest
from helpers.tiny_networks import segmentor_config
from mmcv import Config
from mmseg.models import build_segmentor

from mmseg_custom.distributed.options import FOLLOWING_FAST, Engine
from mmseg_custom.engine.fast import log_fast


def line_of(caplog, engine: Engine, *args, **others) -> str:
    caplog.set_level('INFO')
    caplog.clear()
    log_fast(Config(dict(engine=dict(fast=engine.fast), precision='bf16')), engine,
             build_segmentor(segmentor_config()), *args, **others)
    return caplog.text.strip().rpartition(' engine.fast: ')[2]


@pytest.mark.parametrize('name', FOLLOWING_FAST)
@pytest.mark.parametrize('fast, value, expected', [
    (False, None, False), (True, None, True), (True, False, False), (False, True, True)])
def test_an_option_of_its_own_comes_before_fast(name, fast, value, expected):
    assert Engine.of({'fast': fast, name: value}).is_on(name) is expected


def test_the_line_names_all_options(caplog):
    engine = Engine.of(dict(fast=True, compile=False)).with_recomputed(3)
    assert line_of(caplog, engine, **{'sweep.batched': True}) == (
        'engine.compile=False, engine.cuda_graphs=True, engine.fused_optimizer=True, '
        "engine.checkpoint_blocks=3, head_precision='bf16', sweep.batched=True")


def test_a_test_has_no_optimizer(caplog):
    assert line_of(caplog, Engine.of(dict(fast=True)), False) == (
        "engine.compile=True, engine.cuda_graphs=True, head_precision='bf16'")


def test_there_is_no_line_without_fast(caplog):
    assert line_of(caplog, Engine.of(dict(compile=True))) == ''
