"""docs/dependencies.md names every package of requirements/ and setup.py."""
import ast
import re

from helpers.commands import ROOT


def name_of(requirement: str) -> str:
    """Name of a package, without its versions: 'torch>=2.6' -> 'torch'."""
    return re.match(r'[\w.-]+', requirement)[0]


def required() -> set[str]:
    lines = [line for path in (ROOT / 'requirements').glob('*.txt')
             for line in path.read_text().splitlines()]
    setup = ast.parse((ROOT / 'setup.py').read_text())
    for keyword in ast.walk(setup):
        if isinstance(keyword, ast.keyword) and keyword.arg in ('install_requires',
                                                                'extras_require'):
            value = ast.literal_eval(keyword.value)
            lines += value if isinstance(value, list) else sum(value.values(), [])
    return {name_of(line) for line in lines if line and not line.startswith('#')}


def test_every_package_is_on_the_page():
    page = (ROOT / 'docs/dependencies.md').read_text()
    named = {name for row in re.findall(r'^\| ([^|]*) \|', page, re.MULTILINE)
             for name in re.findall(r'[\w-]+', row)}
    wanted = required()
    assert {'torch', 'mmcls', 'gradio', 'torchao', 'setuptools', 'ruff'} <= wanted
    assert wanted <= named
