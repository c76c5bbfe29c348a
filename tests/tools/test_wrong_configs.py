"""Every tool that takes a config ends in one line where the config is wrong."""
import pytest
from helpers.data import SMALL_LINEAR, write_config

TOOLS = [('train.py', ['CONFIG']), ('test.py', ['CONFIG', 'none', '--eval', 'mIoU']),
         ('doctor.py', ['CONFIG']), ('cache.py', ['build', 'CONFIG'])]


@pytest.fixture
def config(shared_data, tmp_path):
    return write_config(tmp_path / 'config.py', shared_data,
                        extra=SMALL_LINEAR + f"feature_cache = dict(dir='{tmp_path}/cache')")


@pytest.mark.parametrize(('tool', 'arguments'), TOOLS, ids=[tool for tool, _ in TOOLS])
@pytest.mark.parametrize(('option', 'message'), [
    ('optimzer.lr=1', "nothing reads 'optimzer'; did you mean 'optimizer.lr'?"),
    ('model.decode_head.loss_decode.loss_wieght=1', "did you mean 'loss_weight'?"),
    ('model.backbone.num_heads=3', 'num_heads 3: expected a divisor of embed_dim 32'),
])
def test_a_wrong_option_is_one_line(config, run_tool, tool, arguments, option, message):
    arguments = [config if word == 'CONFIG' else word for word in arguments]
    code, out, text = run_tool(tool, *arguments, '--device', 'cpu', '--cfg-options', option)
    assert code == 1 and 'Traceback' not in text
    if tool == 'doctor.py' and 'num_heads' in option:
        assert message in out  # among its findings
    else:
        assert text.strip().splitlines()[-1].startswith('error: ')
        assert message in text.strip().splitlines()[-1]


def test_an_option_without_a_value_is_explained(config, run_tool):
    code, _, text = run_tool('train.py', config, '--cfg-options', 'optimizer.lr', '1e-3')
    assert code == 2 and '--cfg-options optimizer.lr: expected KEY=VALUE' in text


def test_what_nothing_reads_is_said_once(config, run_tool, tmp_path):
    with config.open('a') as file:
        file.write('\nmine = 1\nevaluation = dict(mine=2)\nrunner = dict(max_iters=1)')
    code, _, text = run_tool('train.py', config, '--no-validate', '--device', 'cpu',
                             '--cfg-options', 'feature_cache=None', '--work-dir', tmp_path / 'run')
    assert code == 0
    assert text.count('nothing is known to read these keys of the config') == 1
    assert 'if they are mistyped: mine, evaluation.mine' in text


def test_an_opacity_that_paints_nothing_is_refused_before_the_test(run_tool):
    code, _, error = run_tool('test.py', 'some.py', 'none', '--show-dir', 'x', '--opacity', '0')
    assert code == 2 and '--opacity 0.0: expected more than 0, at most 1' in error
