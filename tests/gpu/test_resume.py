"""With --deterministic, a resumed run ends on a GPU as the uninterrupted one, bit for bit."""
import pytest
from helpers.runs import (
    PARTLY,
    assert_same_end,
    skip_without_peft,
    spread,
    without_the_end,
    write_small_config,
)

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize('part', ['', *PARTLY])
def test_one_process(train, device, tmp_path, part):
    skip_without_peft(part)
    config = write_small_config(tmp_path, PARTLY.get(part, ''))
    options = [config, '--deterministic', *spread(1)]
    text = train(*options, '--work-dir', tmp_path / 'whole', '--seed', 5)
    if device == 'cuda':
        assert '--deterministic: all kernels of a training step are' in text
    text = train(*options, '--work-dir', without_the_end(tmp_path / 'whole', tmp_path / 'again'),
                 '--auto-resume')
    assert 'resumed after iteration 4' in text
    assert_same_end(tmp_path / 'again', tmp_path / 'whole')


@pytest.mark.parametrize('engine', ['ddp', 'fsdp2'])
def test_in_a_group(zygote, device, small_config, tmp_path, engine):
    options = [small_config, '--device', device, '--deterministic', '--launcher', 'pytorch',
               '--engine', engine, '--total-batch', 4]
    zygote.train(*options, '--work-dir', tmp_path / 'whole', '--seed', 5)
    text = zygote.train(*options, '--auto-resume', '--work-dir',
                        without_the_end(tmp_path / 'whole', tmp_path / 'again'))
    assert 'resumed after iteration 4' in text
    assert_same_end(tmp_path / 'again', tmp_path / 'whole')
