"""Runs a tool in a fork of the zygote, within bounds, and reports what it must not do.

    guarded.py SETTINGS.json TOOL [ARGUMENT ...]

The settings name the folder that the tool may write in, how many bytes of memory it may ask for
beyond what the libraries take, and the file that the report goes to: a line for each file outside
that is written, and for each program that is run.
"""
import ctypes
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile

CLONE_NEWNS = 0x20000  # of Linux's unshare
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Programs that the environment in the log is collected with, and a compiler that torch asks.
HARMLESS = ('gcc', 'cc', 'c++', 'g++', 'nvcc', 'nvidia-smi', 'uname', 'lscpu', 'git', 'ldconfig',
            'mount')
NAMES = {'os.mkdir': (0,), 'os.rename': (0, 1), 'os.remove': (0,), 'os.rmdir': (0,),
         'os.symlink': (1,), 'os.link': (1,), 'os.truncate': (0,), 'shutil.rmtree': (0,),
         'os.chmod': (0,)}


class Watch:
    """An audit hook: what is written outside a folder, and what is run."""

    def __init__(self, folder: str, report: str):
        self.allowed = (os.path.realpath(folder) + '/', '/dev/', '/proc/')
        self.report = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.cwd = os.path.realpath(folder)

    def __call__(self, event: str, args: tuple) -> None:
        if event == 'open':
            path, _, flags = args
            if isinstance(path, (str, bytes)) and (flags or 0) & WRITES:
                self.see('wrote', path)
        elif event in NAMES:
            for i in NAMES[event]:
                if isinstance(args[i], (str, bytes)):
                    self.see(event, args[i])
        elif event == 'os.system':
            self.tell(f'ran: {args[0]!r}')
        elif event == 'subprocess.Popen':
            words = args[1] if isinstance(args[1], (list, tuple)) else [args[1]]
            program = os.fsdecode(words[-1] if words[0] == '/bin/sh' else words[0]).split()[0]
            if os.path.basename(program.strip('"\'')) not in HARMLESS:
                self.tell(f'ran: {words!r}')

    def see(self, what: str, path: str | bytes) -> None:
        path = os.fsdecode(path)
        whole = os.path.join(os.path.realpath(os.path.dirname(path) or '.'),
                             os.path.basename(path))
        if not (whole + '/').startswith(self.allowed):
            self.tell(f'{what}: {whole}')

    def tell(self, line: str) -> None:
        os.write(self.report, (line + '\n').encode())


def mount(*words: str) -> None:
    subprocess.run(['mount', *words], check=True, stderr=subprocess.PIPE)


def main() -> None:
    settings = json.load(open(sys.argv[1]))
    sys.argv = sys.argv[2:]
    os.environ.update(HOME=settings['folder'], TMPDIR=settings['folder'],
                      XDG_CACHE_HOME=settings['folder'], **settings.get('env', {}))
    tempfile.tempdir = settings['folder']  # what was imported may have asked for it before
    if settings.get('mounts'):  # seen by this process and its children alone
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), 'unshare')
        mount('--make-rprivate', '/')
        for words in settings['mounts']:
            mount(*words)
    if settings.get('memory') is not None:
        pages = int(open('/proc/self/statm').read().split()[0])
        limit = pages * resource.getpagesize() + settings['memory']
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.addaudithook(Watch(settings['folder'], settings['report']))
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name='__main__')


main()
