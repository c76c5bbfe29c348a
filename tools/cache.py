"""Feature caches: python tools/cache.py build CONFIG | list DIR | verify DIR | prune DIR ..."""
import argparse

from _arguments import add_common_arguments, add_debug
from _command_line import Parser, existing, start


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description='Fill, list, verify and prune feature caches')
    commands = parser.add_subparsers(dest='command', required=True)
    build = commands.add_parser('build', help='fill the cache of a config, without training')
    build.add_argument('config', help='config file with feature_cache=dict(dir=...)')
    add_common_arguments(build)
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
        add_debug(command)
    return existing(parser.parse_args(), 'config', '--load-from', 'dir')


def build(args: argparse.Namespace) -> None:
    """Fills the cache of a config."""
    from mmseg_custom.engine.build import build_model
    from mmseg_custom.engine.cached import CacheSettings, open_cache
    from mmseg_custom.engine.config import load_config
    from mmseg_custom.engine.start import start_run
    from mmseg_custom.errors import InputError

    settings = load_config(args.config, args.cfg_options).get('feature_cache')
    if not settings:
        raise InputError(f'config {args.config} has no feature_cache: give it one, e.g. '
                         '--cfg-options feature_cache.dir=/scratch/features')
    args.work_dir = args.work_dir or CacheSettings.of(settings).dir
    run = start_run(args, splits=('train',), owns_work_dir=False)
    open_cache(run, build_model(run))


def show(args: argparse.Namespace) -> None:
    """Prints a line for each cache."""
    from mmseg_custom.engine.each import for_each
    from mmseg_custom.feature_cache import manage

    names = manage.matching(args.dir, args.names)
    if not names:
        print(f'no cache in {args.dir}')
    for_each(names, lambda name: print(manage.summarize(args.dir, name).line()), 'caches')


def verify(args: argparse.Namespace) -> None:
    """Reads caches, and names what is corrupt."""
    from mmseg_custom.engine.each import for_each
    from mmseg_custom.errors import InputError
    from mmseg_custom.feature_cache import FeatureCache, manage
    from mmseg_custom.progress import with_progress

    corrupt = {}

    def verify_one(name: str) -> None:
        cache = FeatureCache.open(args.dir, name)
        found = manage.verify(cache, lambda shards: with_progress(
            shards, len(shards), 'file', name))
        corrupt.update(found)
        for path, reason in found.items():
            print(f'corrupt: {path} ({reason})')
        print(f'{manage.summarize(args.dir, name).line()}: '
              f'{len(cache.present()) - len(found)} files are right, {len(found)} corrupt')

    for_each(manage.matching(args.dir, args.names), verify_one, 'caches')
    if corrupt:
        raise InputError(f'{len(corrupt)} corrupt files in {args.dir}: the next run of the config '
                         'computes them anew')


def prune(args: argparse.Namespace) -> None:
    """Removes caches, and what killed runs left half-written."""
    from mmseg_custom.engine.each import for_each
    from mmseg_custom.feature_cache import FeatureCache, manage

    def remove(name: str) -> None:
        manage.delete(args.dir, name)
        print(f'removed: {name}')

    def sweep(name: str) -> None:
        for path in FeatureCache.open(args.dir, name).remove_leftovers():
            print(f'removed: {path}')

    for_each(manage.matching(args.dir, args.names) if args.names else (), remove, 'caches')
    for_each(manage.matching(args.dir, ()), sweep, 'caches')


def main(args: argparse.Namespace) -> None:
    """Runs the subcommand."""
    dict(build=build, list=show, verify=verify, prune=prune)[args.command](args)


if __name__ == '__main__':
    start(parse_args, main)
