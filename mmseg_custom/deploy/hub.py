"""Exported segmentors on the Hugging Face hub: fetched by name, and uploaded.

The library huggingface_hub does the work, with its own cache, endpoint (``HF_ENDPOINT``) and login
(``hf auth login``); it is imported where a hub is asked for.
"""
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import InputError, words_of
from ..missing import look_around
from .config import BACKBONE_FOLDER, CARD, CONFIG, LICENSE_NOTE, WEIGHTS, read_config
from .runtimes import AOT, ONNX

# What a runtime needs beside config.json.
FILES = dict(torch=[WEIGHTS], onnx=[ONNX, f'{ONNX}.data'], aot=[AOT])
UPLOADED = [CONFIG, f'{BACKBONE_FOLDER}/*', CARD, LICENSE_NOTE,
            *(file for files in FILES.values() for file in files)]
_REPOSITORY = re.compile(r'[\w.-]{1,96}/[\w.-]{1,96}')
Result = TypeVar('Result')


def locate_folder(name: str, revision: str | None = None,
                  runtime: str = 'torch') -> str:
    """Returns the folder of an exported segmentor, which is fetched if it is a repository's name.

    Args:
        name: Folder, or name of a repository: 'owner/name'.
        revision: Branch, tag or commit of the repository.
        runtime: What will run the network: 'torch', 'onnx' or 'aot'; files for others are left.

    Raises:
        InputError: If there is no such folder, or the repository cannot be fetched.
    """
    if os.path.isdir(name):
        if revision is not None:
            raise InputError(f'revision={revision!r} with the folder {name}: expected it with the '
                             'name of a repository of the hub; leave it out')
        return name
    if os.path.exists(name) or not _REPOSITORY.fullmatch(name):
        raise InputError(f'{name} is not a folder{look_around(name)}: expected one that '
                         'tools/export.py wrote, or the name of a repository of the Hugging Face '
                         'hub, owner/name')
    hub = _import_hub()
    return _asking(f'{name} is no folder here, and could not be fetched from the hub',
                   lambda: hub.snapshot_download(name, revision=revision, allow_patterns=[
                       CONFIG, f'{BACKBONE_FOLDER}/*', *FILES[runtime]]))


def push_to_hub(folder: str, repository: str, private: bool = False,
                message: str = 'Upload a segmentor') -> str:
    """Uploads the folder of an exported segmentor; makes the repository where it is missing.

    Files of the folder that do not belong to an exported segmentor stay here.

    Args:
        folder: Folder that ``tools/export.py`` wrote.
        repository: Name of the repository: 'owner/name'.
        private: Whether a repository that is made can be seen by its owner alone.
        message: Message of the commit.

    Returns:
        Address of the commit.

    Raises:
        InputError: If the folder is no exported segmentor, or it cannot be uploaded.
    """
    check_repository(repository)
    read_config(folder)
    hub = _import_hub()

    def upload() -> str:
        api = hub.HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder,
                                     commit_message=message, allow_patterns=UPLOADED))

    return _asking(f'{folder} was not uploaded to {repository}', upload)


def check_repository(repository: str) -> None:
    """Checks the name of a repository, and that huggingface_hub is there, before long work.

    Raises:
        InputError: If it is none, or the library is missing.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f'repository {repository!r}: expected owner/name, in letters, digits and '
                         '.-_')
    _import_hub()


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError('the Hugging Face hub needs the library huggingface_hub, which is not '
                         'installed: pip install huggingface_hub') from error
    return huggingface_hub


def _asking(what_failed: str, ask: Callable[[], Result]) -> Result:
    """Asks the hub, and says in one line why it did not work.

    Raises:
        InputError: If it did not.
    """
    try:
        return ask()
    except Exception as error:  # of the library's HTTP client, which is another one in 1.0
        raise InputError(f'{what_failed} ({words_of(error)}): {_way_out(error)}') from error


def _way_out(error: Exception) -> str:
    kind, status = type(error).__name__, getattr(getattr(error, 'response', None), 'status_code', 0)
    if 'Offline' in kind or os.environ.get('HF_HUB_OFFLINE') in ('1', 'true', 'True', 'ON'):
        return 'unset HF_HUB_OFFLINE where there is a network'
    if status in (401, 403) or 'Token' in kind:
        return 'log in with `hf auth login`, with a token that may read, or write, this repository'
    if status == 404:
        return 'check its name and revision, and that your login may see it'
    return 'check the network and HF_ENDPOINT, and try again'
