"""The pages, and the scripts in scripts/docs that build the site."""
import importlib.util
from pathlib import Path
from types import ModuleType

from helpers.commands import ROOT

PAGES = [*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md'), ROOT / 'data/README.md',
         ROOT / 'pretrained/README.md']


def script(name: str) -> ModuleType:
    """Loads a file of scripts/docs, which is no package."""
    spec = importlib.util.spec_from_file_location(f'docs_{name}', ROOT / f'scripts/docs/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def name_of(page: Path) -> str:
    """The path of a page in the repository."""
    return page.relative_to(ROOT).as_posix()
