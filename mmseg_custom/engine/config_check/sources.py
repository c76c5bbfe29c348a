"""Other readers of a config key: the config files themselves, and the plugins they import."""
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mmcv import Config

from ...plugins import is_known_module


def read_by_config(name: str, cfg: Config) -> bool:
    """Returns whether a file of the config uses a variable, as ``x`` or as ``{{_base_.x}}``."""
    assigned = r'\s*=(?!=)' if (cfg.filename or '').endswith('.py') else r'["\']?\s*:'
    code = re.sub(r'#.*', '', cfg.text)
    return re.search(rf'\b{re.escape(name)}\b(?!{assigned})', code) is not None


def is_written_in(name: str, cfg: Config) -> bool:
    """Returns whether the config's own file, not one of its bases, has a key."""
    path = Path(cfg.filename or '')
    return path.is_file() and re.search(rf'\b{re.escape(name)}\b', path.read_text(
        encoding='utf-8', errors='replace')) is not None


def read_by_plugins(name: str, cfg: Config) -> bool:
    """Returns whether the source of a module of ``custom_imports`` names a key."""
    return any(re.search(rf'\b{re.escape(name)}\b', text) for text in _plugin_sources(cfg))


def may_be_read_by(name: str, target: Callable) -> bool:
    """Returns whether the source of a plugin's class or function names a key, or is not there."""
    try:
        return re.search(rf'\b{re.escape(name)}\b', inspect.getsource(target)) is not None
    except (OSError, TypeError):  # compiled, or typed into an interpreter
        return True


def _plugin_sources(cfg: Config) -> Iterator[str]:
    asked = cfg.get('custom_imports')
    imports = (asked.get('imports') if isinstance(asked, Mapping) else None) or []
    for plugin in [imports] if isinstance(imports, str) else imports:
        if is_known_module(plugin):
            continue
        for module in [module for each, module in sorted(sys.modules.items())
                       if f'{each}.'.startswith(f'{plugin}.')]:
            try:
                yield inspect.getsource(module)
            except (OSError, TypeError):  # compiled
                continue
