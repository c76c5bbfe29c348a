"""Exported segmentors on a local stand-in for the Hugging Face hub."""
import json
from pathlib import Path

import pytest
from helpers.hub_server import COMMIT, running_hub

from mmseg_custom.deploy import hub as deploy_hub
from mmseg_custom.deploy.hub import locate_folder, push_to_hub
from mmseg_custom.errors import InputError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A running stand-in, which huggingface_hub asks in the place of the real one."""
    from huggingface_hub import constants

    with running_hub() as running:
        monkeypatch.setenv('HF_TOKEN', 'hf_of_a_test')
        monkeypatch.setattr(constants, 'ENDPOINT', running.address)
        monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE',
                            running.address + '/{repo_id}/resolve/{revision}/{filename}')
        for name in ('HF_HUB_CACHE', 'HF_XET_CACHE', 'HF_HOME'):
            monkeypatch.setattr(constants, name, str(tmp_path / 'cache'))
        monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)
        yield running


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files of an exported segmentor, and one that is not of it."""
    monkeypatch.setattr(deploy_hub, 'read_config', lambda folder: {})  # which test_segmentor.py has
    folder = tmp_path / 'segmentor'
    folder.mkdir()
    for name, text in (('config.json', json.dumps({})), ('model.safetensors', 'weights'),
                       ('README.md', '---\nlicense: mit\n---\n'), ('notes.txt', 'mine')):
        (folder / name).write_text(text)
    return folder


def test_a_folder_is_uploaded_and_fetched(hub, folder):
    address = push_to_hub(str(folder), 'me/segmentor', private=True)
    assert address == f'{hub.address}/me/segmentor/commit/{COMMIT}'
    assert hub.private == {'me/segmentor'}
    assert sorted(hub.files['me/segmentor']) == ['README.md', 'config.json', 'model.safetensors']
    fetched = locate_folder('me/segmentor')
    assert (Path(fetched) / 'model.safetensors').read_text() == 'weights'
    assert not (Path(fetched) / 'README.md').exists()
    assert locate_folder('me/segmentor', runtime='onnx') == fetched
    push_to_hub(str(folder), 'me/segmentor')  # again, into the repository that is there


@pytest.mark.parametrize('ask', [
    lambda folder: push_to_hub(str(folder), 'me/segmentor'),
    lambda folder: locate_folder('me/segmentor')])
def test_refusals_are_one_line(hub, folder, ask):
    hub.denies = True
    with pytest.raises(InputError, match='401.*log in with `hf auth login`') as error:
        ask(folder)
    assert '\n' not in str(error.value)


def test_a_missing_repository(hub):
    with pytest.raises(InputError, match='me/nothing is no folder here, and could not be fetched '
                       '.*check its name'):
        locate_folder('me/nothing')


def test_without_a_network(hub, folder, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')  # where nobody listens
    with pytest.raises(InputError, match='was not uploaded to me/segmentor .*check the network'):
        push_to_hub(str(folder), 'me/segmentor')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(InputError, match='unset HF_HUB_OFFLINE'):
        locate_folder('me/segmentor')


def test_names_of_repositories(folder):
    for name in ('segmentor', 'a/b/c', 'me/seg mentor', '/me'):
        with pytest.raises(InputError, match='expected owner/name'):
            push_to_hub(str(folder), name)
