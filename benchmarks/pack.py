"""Copies what a machine with PyTorch lacks into a folder, to take there: `make gpu-pack`.

    python -m benchmarks.pack build/gpu-packages

Run with the Python of .venv. Copied are the installed files of the distributions below; they are
pure Python (mmcv-full without its compiled ops), so that any version of Python can import them.
mmseg's requirement mmcls is left out: only its own configs import it. The folder goes at the end of
PYTHONPATH, which the benchmarks do by themselves.
"""
import shutil
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

NEEDED = ('mmcv-full', 'mmsegmentation', 'addict', 'yapf', 'platformdirs', 'prettytable', 'wcwidth')
OPTIONAL = ('torchao',)  # for LowMemoryAdamW
DISPENSABLE = ('wcwidth', 'torchao')  # their compiled parts, without which they do what is needed
COMPILED = ('.so', '.pyd', '.dylib')
LIMIT = 40 * 10 ** 6  # bytes
# Parts that nothing imports: mmseg's own configs and tools, sources of mmcv's ops, tests.
LEFT_OUT = ('mmseg/.mim/', 'mmcv/ops/csrc/', 'yapftests/', 'tests/', 'test/')


def files_of(found: Distribution) -> list[PurePosixPath]:
    """Returns the files of a distribution that are copied, relative to its folder.

    Raises:
        SystemExit: If one of a needed distribution is compiled.
    """
    files = [path for path in found.files or () if '..' not in path.parts
             and '__pycache__' not in path.parts
             and not str(path).startswith(LEFT_OUT)]
    compiled = [path for path in files if path.suffix in COMPILED]
    if compiled and found.metadata['Name'] not in DISPENSABLE:
        sys.exit(f'error: {found.metadata["Name"]} has compiled files ({compiled[0]}), which fit '
                 'one version of Python: install it without them (scripts/setup_env.sh does)')
    return [path for path in files if path not in compiled]


def pack(folder: Path) -> dict[str, str]:
    """Fills a folder anew; returns the versions of what is in it.

    Raises:
        SystemExit: If a distribution is not installed, or all are larger than 40 MB.
    """
    new = folder.with_name(folder.name + '.part')
    shutil.rmtree(new, ignore_errors=True)
    versions: dict[str, str] = {}
    for name in (*NEEDED, *OPTIONAL):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            if name in OPTIONAL:
                continue
            sys.exit(f'error: {name} is not installed here: run this with the Python of .venv')
        for path in files_of(found):
            source, target = Path(str(found.locate_file(path))), new / path
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        versions[name] = found.version
    size = sum(path.stat().st_size for path in new.rglob('*') if path.is_file())
    if size > LIMIT:
        sys.exit(f'error: {size / 1e6:.0f} MB in {new}: expected at most {LIMIT / 1e6:.0f}')
    (new / 'VERSIONS').write_text(''.join(f'{n}=={v}\n' for n, v in versions.items()))
    shutil.rmtree(folder, ignore_errors=True)
    new.replace(folder)
    print(f'{folder}: {size / 1e6:.1f} MB, ' + ', '.join(f'{n} {v}' for n, v in versions.items()))
    return versions


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    pack(Path(sys.argv[1]))
