"""What commands print, and what their log files hold."""
import json

import pytest
from helpers.data import write_config


@pytest.fixture
def config(tmp_path, shared_data):
    (tmp_path / 'run').mkdir()
    return write_config(tmp_path / 'run/config.py', shared_data, 'linear_probing_tiny', """
data['workers_per_gpu'] = 0
runner = dict(max_iters=3)
checkpoint_config = dict(interval=3)
evaluation = dict(interval=3)
log_config = dict(interval=50, hooks=[dict(type='TextLoggerHook')])
""")


NOISE = ('Hooks will be executed', 'environment', 'GCC', 'avg_non_ignore', 'start method',
         'per class results', 'nan', '|', 'init_weights', 'parameter groups', 'UserWarning',
         'nothing is known to read')


def test_a_run_prints_little_and_its_file_holds_everything(run_tool, config, tmp_path):
    """The work dir is that of the config, which stays as it is; its copy is as good."""
    written = config.read_text()
    code, out, screen = run_tool('train.py', config, '--work-dir', tmp_path / 'run')
    assert (code, out) == (0, '')
    assert not [noise for noise in NOISE if noise in screen]
    for text in (f'recipe: {config}, on ', 'images to train on', ' frozen ones in', 'Iter [3/3]',
                 'evaluation after iteration 3: mIoU ', 'classes are neither in',
                 'best mIoU so far', 'INFO - saved ',
                 'done: checkpoints, evaluations and the log are in '):
        assert screen.count(text) == 1, text
    file = next((tmp_path / 'run').glob('*.log')).read_text()
    assert not [text for text in (*NOISE[:7], 'Iter(val) [', *screen.splitlines()[1:3])
                if text not in file]
    lines = map(json.loads, next((tmp_path / 'run').glob('*.log.json')).open())
    scores = next(line for line in lines if line.get('mode') == 'val')
    assert len(str(scores['mIoU'])) <= 6 and any(name.startswith('IoU.') for name in scores)

    assert config.read_text() == written
    copy = tmp_path / 'run/config_resolved.py'
    assert f'tools/test.py {copy}' in (tmp_path / 'run/README.md').read_text()
    code, out, screen = run_tool('test.py', copy, tmp_path / 'run/latest.pth', '--eval', 'mIoU',
                                 '--work-dir', tmp_path / 'run')
    assert code == 0 and not [noise for noise in NOISE if noise in out + screen]
    assert out.count('mIoU ') == 1 and out.count('neither in the ground truth') == 1
    assert 'per class results' in next((tmp_path / 'run').glob('test_*.log')).read_text()
