"""Feature caches: python tools/cache.py build CONFIG | list DIR | verify DIR | prune DIR ..."""
import argparse
from functools import partial

import _root  # noqa: F401
from mmseg.datasets import build_dataset
from tqdm import tqdm

from mmseg_custom.checkpoint import open_checkpoint
from mmseg_custom.distributed.parallelize import Engine
from mmseg_custom.engine import cli
from mmseg_custom.engine.cached import Settings, open_cache
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.train import build_model
from mmseg_custom.errors import InputError
from mmseg_custom.feature_cache import FeatureCache, manage


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description='Fill and look after feature caches')
    commands = parser.add_subparsers(dest='command', required=True)
    build = commands.add_parser('build', help='fill the cache of a config, without training')
    build.add_argument('config', help='config file with feature_cache=dict(dir=...)')
    cli.add_common_arguments(build)
    build.add_argument('--load-from', help='checkpoint to take the weights from')
    build.add_argument('--seed', type=int, default=0, help='of a backbone without weights; the '
                       'views have their own, feature_cache.seed (default: %(default)s)')
    for name, text in (('list', 'say what caches there are'),
                       ('verify', 'read all of them and compare the checksums'),
                       ('prune', 'remove caches, and what killed runs left half-written')):
        command = commands.add_parser(name, help=text)
        command.add_argument('dir', help='feature_cache.dir')
        command.add_argument('names', nargs='*', metavar='NAME', help='of caches, or how they '
                             'begin' + ('; none: only what was left half-written'
                                        if name == 'prune' else '; default: all'))
        command.add_argument('--debug', action='store_true', help='print the traceback of errors')
    return parser.parse_args()


def build(args: argparse.Namespace) -> None:
    """Fills the cache of a config."""
    cfg = load_config(args.config, args.cfg_options)
    if not cfg.get('feature_cache'):
        raise InputError(f'config {args.config} has no feature_cache: give it one, e.g. '
                         '--cfg-options feature_cache.dir=/scratch/features')
    cfg.work_dir = args.work_dir or Settings.of(cfg.feature_cache).dir
    device, _ = cli.start(args, cfg, log=False)
    cli.seed_everything(args.seed, False, False)
    dataset = build_dataset(cfg.data.train)
    start = args.load_from or cfg.get('load_from')
    model = build_model(cfg, device, Engine.of(cfg.get('engine')),
                        open_checkpoint(start) if start else None)
    open_cache(cfg, model, dataset, device)


def show(args: argparse.Namespace) -> None:
    """Prints a line for each cache."""
    names = manage.matching(args.dir, args.names)
    for name in names:
        print(manage.summarize(args.dir, name).line())
    if not names:
        print(f'no cache in {args.dir}')


def verify(args: argparse.Namespace) -> None:
    """Reads caches, and names what is corrupt."""
    corrupt = {}
    for name in manage.matching(args.dir, args.names):
        cache = FeatureCache.open(args.dir, name)
        found = manage.verify(cache, partial(tqdm, unit='file', desc=name))
        corrupt.update(found)
        for path, reason in found.items():
            print(f'corrupt: {path} ({reason})')
        print(f'{manage.summarize(args.dir, name).line()}: '
              f'{len(cache.present()) - len(found)} files are right, {len(found)} corrupt')
    if corrupt:
        raise InputError(f'{len(corrupt)} corrupt files in {args.dir}: the next run of the config '
                         'computes them anew')


def prune(args: argparse.Namespace) -> None:
    """Removes what it is asked to."""
    for name in manage.matching(args.dir, args.names) if args.names else ():
        manage.delete(args.dir, name)
        print(f'removed: {name}')
    for name in manage.matching(args.dir, ()):
        for path in FeatureCache.open(args.dir, name).remove_leftovers():
            print(f'removed: {path}')


def main() -> None:
    """Does what it is asked to."""
    args = parse_args()
    dict(build=build, list=show, verify=verify, prune=prune)[args.command](args)


if __name__ == '__main__':
    cli.run(main)
