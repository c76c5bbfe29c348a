"""Reads the files of a config; anything wrong with them becomes a one-line error."""
import codecs
import copy
import os.path as osp
import tempfile
import traceback
from contextlib import suppress
from types import FrameType

from mmcv import Config

from ..errors import InputError, words_of


def read_config(path: str) -> Config:
    """Reads a config with its bases, and imports what it asks for.

    Raises:
        InputError: If a file is missing or cannot be read, its code fails, or a module of
            ``custom_imports`` cannot be imported. The line names the file.
    """
    try:
        cfg = Config.fromfile(path)
        copy.deepcopy(cfg._cfg_dict)  # as runs do; files and generators, say, cannot be copied
        return cfg
    except InputError:
        raise
    # Config files are programs: whatever they raise is input, and so is their end.
    except (Exception, SystemExit) as error:
        _close_copies(error)
        raise InputError(_explain(path, error)) from error


def is_copy(path: str) -> bool:
    """Returns whether a config file is what a run keeps of its own config: all of it, spelt out.

    Args:
        path: A config that can be read.
    """
    with open(path, encoding='utf-8') as file:
        return Config.fromfile(path).dump() == file.read()


def path_of_copy(work_dir: str, path: str) -> str:
    """Returns where a run keeps its resolved config: by the config's name, in its work dir.

    A config of the user's that lies in the work dir itself is left alone.

    Args:
        work_dir: Work dir of the run.
        path: Config that the run was started with.
    """
    copy = osp.join(work_dir, osp.basename(path))
    if osp.exists(copy) and osp.samefile(copy, path) and not is_copy(path):
        stem, ending = osp.splitext(copy)
        return f'{stem}_resolved{ending}'
    return copy


def _close_copies(error: BaseException) -> None:
    """Closes the temporary copies that mmcv left open; their folder is gone by now.

    Otherwise Python would close them at some later time, and print that it failed.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        copy = frame.f_locals.get('temp_config_file')
        if frame.f_code.co_name == '_file2dict' and copy is not None:
            with suppress(OSError):
                copy.close()


def _explain(path: str, error: BaseException) -> str:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    importing = [frame for frame in frames if frame.f_code.co_name == 'import_modules_from_strings']
    if importing and 'imp' in importing[-1].f_locals:
        return (f'config {path}: custom_imports: ' + _failed_import(
            importing[-1].f_locals['imp'], error))
    files = [frame.f_locals['filename'] for frame in frames
             if frame.f_code.co_name == '_file2dict' and 'filename' in frame.f_locals]
    file = files[-1] if files else path
    if isinstance(error, RecursionError):
        return f'config {path}: its _base_ files lead back to themselves: correct _base_'
    if isinstance(error, FileNotFoundError) and len(files) > 1 and not osp.exists(file):
        return (f'config {files[-2]}: its _base_ {file} does not exist: correct _base_, or copy '
                'that file there')
    if isinstance(error, UnicodeError):
        return (f'config {file} is not UTF-8 ({words_of(error)}): save it as UTF-8, e.g. '
                f'`iconv -f {_encoding(file)} -t UTF-8 {file} > NEW_FILE`')
    if 'null bytes' in str(error):
        return (f'config {file} holds bytes of 0: it is {_encoding(file)}, or damaged; save it as '
                'UTF-8')
    if isinstance(error, SyntaxError):
        cause = error.__context__ if isinstance(error.__context__, SyntaxError) else error
        mark = '; save it as UTF-8 without a byte order mark' if 'U+FEFF' in str(cause) else ''
        return f'config {file} is not Python: {cause.msg}, line {cause.lineno}{mark}'
    if isinstance(error, OSError) and error.filename is not None and not _runs(frames):
        return f'config {file} cannot be read: {error.strerror}'
    line = f', line {_runs(frames)[-1].f_lineno}' if _runs(frames) else ''
    return f'config {file}{line}: {words_of(error)}'


def _encoding(path: str) -> str:
    """Guesses the encoding of a text that is not UTF-8, in the name that iconv has for it."""
    with open(path, 'rb') as file:
        data = file.read()
    for mark, name in ((codecs.BOM_UTF32_LE, 'UTF-32'), (codecs.BOM_UTF32_BE, 'UTF-32'),
                       (codecs.BOM_UTF16_LE, 'UTF-16'), (codecs.BOM_UTF16_BE, 'UTF-16')):
        if data.startswith(mark):
            return name
    if b'\0' not in data:
        return 'LATIN1'
    return 'UTF-16BE' if data.startswith(b'\0') else 'UTF-16LE'


def _failed_import(name: str, error: BaseException) -> str:
    """Returns the line for a module that cannot be imported; mmcv's own error has no message."""
    cause = error.__context__ if isinstance(error, ImportError) and not str(error) else error
    if isinstance(cause, ModuleNotFoundError) and f'{name}.'.startswith(f'{cause.name}.'):
        return (f'there is no module {name!r}: correct the name, install it, or put its folder on '
                'PYTHONPATH')
    return (f'the module {name!r} fails when it is imported: {words_of(cause or error)}; --debug '
            'prints the traceback')


def _runs(frames: list[FrameType]) -> list[FrameType]:
    """Returns the frames of a config's own code, which mmcv runs from a temporary copy."""
    folder = tempfile.gettempdir() + osp.sep
    return [frame for frame in frames if frame.f_code.co_filename.startswith(folder)
            and frame.f_code.co_name == '<module>']
