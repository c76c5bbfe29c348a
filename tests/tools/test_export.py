"""tools/export.py from the command line."""
import pytest
from helpers.data import SMALL_LINEAR, write_config
from helpers.exported import draw_validation, write_checkpoint

from mmseg_custom.deploy import hub as deploy_hub


@pytest.fixture
def small(tmp_path):
    config = write_config(tmp_path / 'small.py', draw_validation(tmp_path), extra=SMALL_LINEAR)
    write_checkpoint(config, tmp_path / 'small.pth')
    return config, tmp_path / 'small.pth'


def test_a_folder_is_written_and_uploaded(small, run_tool, tmp_path, monkeypatch):
    uploaded = []
    monkeypatch.setattr(deploy_hub, 'push_to_hub', lambda *words: uploaded.append(words) or 'URL')
    code, out, error = run_tool('export.py', *small, tmp_path / 'out', '--license', 'mit',
                                '--push-to-hub', 'me/small', '--private')
    assert code == 0, error
    assert out.splitlines()[-2:] == [f'written: {tmp_path}/out', 'uploaded: URL']
    assert uploaded == [(f'{tmp_path}/out', 'me/small', True)]
    assert 'license: mit' in (tmp_path / 'out/README.md').read_text()
    code, _, error = run_tool('export.py', *small, tmp_path / 'out')
    assert code == 1 and error.splitlines()[-1].startswith(f'error: {tmp_path}/out exists')


@pytest.mark.parametrize('options, message', [
    (['--private'], '--private is for the repository of --push-to-hub'),
    (['--push-to-hub', 'small'], "repository 'small': expected owner/name"),
])
def test_wrong_options(small, run_tool, tmp_path, options, message):
    code, _, error = run_tool('export.py', *small, tmp_path / 'out', *options)
    assert code in (1, 2) and message in error and not (tmp_path / 'out').exists()
