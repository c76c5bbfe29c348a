"""Command lines: parsed by the standard library alone, so that what is wrong is said at once.

``start`` runs a tool. What a tool needs to work is imported by its functions, after the parsing.
"""
import argparse
import difflib
import importlib.util
import os.path as osp
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn

from _root import ROOT

NEAR = 0.7  # similarity of two options, 0..1


def alone(name: str) -> ModuleType:
    """Loads a module of the package without the package, whose import takes seconds.

    The module must need nothing but the standard library.

    Args:
        name: Name of the module below ``mmseg_custom``, with dots.
    """
    path = osp.join(ROOT, 'mmseg_custom', *name.split('.')) + '.py'
    spec = importlib.util.spec_from_file_location(f'alone.{name}', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHOICES = alone('choices')


def start(parse_args: Callable[[], argparse.Namespace],
          main: Callable[[argparse.Namespace], None]) -> None:
    """Runs a tool: parses its command line, and only then imports what is slow to import."""
    args = parse_args()
    try:
        from mmseg_custom.engine import cli
        from mmseg_custom.engine.key_values import convert
        from mmseg_custom.engine.screen import show_and_keep
    except KeyboardInterrupt:  # After that, cli.run takes it.
        print('error: interrupted', file=sys.stderr)
        sys.exit(130)
    show_and_keep('INFO', None)  # what libraries log and warn of is not for the screen
    cli.run(lambda: main(convert(args)))


def check_tool(words: Sequence[str]) -> None:
    """Parses the command line of a tool that a launcher starts many processes of.

    What is wrong in it ends the launcher, with one message in the place of many.

    Args:
        words: Command line of the launcher; the tool and its arguments are its end.
    """
    folder = osp.join(ROOT, 'tools')
    for number, word in enumerate(words):
        if word.endswith('.py') and osp.dirname(osp.abspath(word)) == folder:
            own, sys.argv = sys.argv, list(words[number:])
            runpy.run_path(word)['parse_args']()
            sys.argv = own
            return


class Parser(argparse.ArgumentParser):
    """argparse whose errors are a line or two: what arrived, and the nearest that is known."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses a command line, or the part of a subcommand; refuses what is unknown."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return found, []

    def error(self, message: str) -> NoReturn:
        """Says what is wrong, without the usage of forty lines; exits with 2."""
        message = alone('errors').one_line(message)
        self.exit(2, f'error: {message}\n({self.prog} --help lists the options)\n')

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Names the first unknown option, or else the first word, and the nearest option."""
        options = [word for word in unknown if word.startswith('-')]
        word = options[0].partition('=')[0] if options else unknown[0]
        known = re.findall(r'(?<![\w-])--?[a-z][\w-]*', self.format_usage())
        near = difflib.get_close_matches(word, known, n=1, cutoff=NEAR)
        if not options and '=' in word and '--cfg-options' in known:
            near = [f'--cfg-options {word}']
        self.error(f'{word} is unknown' + (f': did you mean {near[0]}?' if near else ''))


def existing(args: argparse.Namespace, *names: str) -> argparse.Namespace:
    """Checks the paths of a command line; exits with 1 at the first that does not exist.

    Args:
        args: Parsed command line.
        names: Names of arguments and options, such as 'config' and '--load-from'; those that were
            not given are passed over.

    Returns:
        The command line.
    """
    for name in names:
        found = getattr(args, name.lstrip('-').replace('-', '_'), None)
        for path in found if isinstance(found, list) else [found]:
            if not path or '://' in path or name == 'checkpoint' and path == CHOICES.UNTRAINED:
                continue  # The work itself says what it takes of addresses.
            if not osp.exists(path):
                otherwise = 'see configs/ for the recipes' if name == 'config' else ''
                fail(f'{name} {path} does not exist'
                     f'{alone("missing").look_around(path, otherwise)}')
            if name == 'config' and osp.isdir(path):
                fail(f'{name} {path} is a folder: expected a file in it')
    return args


def fail(message: str) -> NoReturn:
    """Ends the tool for wrong input, with exit code 1."""
    print(f'error: {alone("errors").one_line(message)}', file=sys.stderr)
    sys.exit(1)
