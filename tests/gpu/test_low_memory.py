"""LowMemoryAdamW on a GPU, where its step is compiled, and its checkpoint."""
import shutil

import pytest
from helpers.runs import assert_same_end, spread

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize('state', ['8bit', 'bf16'])
def test_resumed(train, small_config, tmp_path, state):
    pytest.importorskip('torchao')
    options = [small_config, '--deterministic', *spread(1), '--cfg-options',
               'optimizer.type=LowMemoryAdamW', f'optimizer.state={state}',
               'evaluation.interval=8', 'checkpoint_config.interval=4']
    train(*options, '--work-dir', tmp_path / 'whole', '--seed', 5)
    shutil.copytree(tmp_path / 'whole', tmp_path / 'again', symlinks=True)
    for path in [*tmp_path.glob('again/iter_8.*'), *tmp_path.glob('again/best*')]:
        path.unlink()
    text = train(*options, '--work-dir', tmp_path / 'again', '--auto-resume')
    assert 'resumed after iteration 4' in text
    assert_same_end(tmp_path / 'again', tmp_path / 'whole')
