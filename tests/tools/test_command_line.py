"""Command lines: what is wrong is said in a line or two, before anything heavy is imported."""
import pytest
from helpers.commands import ROOT, run

TINY = 'configs/tiny/full_tuning_tiny.py'
TOOLS = sorted(path.name for path in (ROOT / 'tools').glob('[!_]*.py')
               if path.name != 'torchrun.py')  # Its options are PyTorch's.
# Runs each tool's command line in one process, and says what it ended with and has imported.
SCRIPT = """
import contextlib, io, json, runpy, sys
def end(tool, *words):
    sys.argv, text = [tool, *words], io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            runpy.run_path(tool, run_name='__main__')
        except SystemExit as end:
            code = end.code
    heavy = {'torch', 'numpy', 'mmcv', 'mmseg', 'mmseg_custom', 'matplotlib'} & sys.modules.keys()
    return code, text.getvalue(), sorted(heavy)
sys.path.insert(0, 'tools')
print(json.dumps([end(*words) for words in json.loads(sys.argv[1])]))
"""


@pytest.fixture
def tool(monkeypatch):
    """Loads a tool: name -> its functions."""
    import runpy
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    return lambda name: runpy.run_path(str(ROOT / 'tools' / name))


@pytest.fixture
def parse(tool, monkeypatch):
    """Parses a command line: (tool, *words) -> namespace."""
    def parse(name, *words):
        monkeypatch.setattr('sys.argv', [name, *map(str, words)])
        return tool(name)['parse_args']()
    return parse


def test_nothing_heavy_is_imported_before_the_command_line_is_right():
    import json
    wrong_paths = {'cache.py': ['list', 'nowhere'], 'few_shot.py': ['report', 'nowhere'],
                   'convert_weights.py': ['nowhere', 'x.pth'],
                   'demo_grid.py': [TINY, 'nowhere', 'x.png'],
                   'image_demo.py': ['nowhere', TINY, 'none'],
                   'merge_checkpoint.py': ['nowhere', 'x.pth'],
                   'prepare_data.py': ['ade20k', 'nowhere'],
                   'test.py': [TINY, 'nowhere', '--eval', 'mIoU'],
                   'train.py': [TINY, '--load-from', 'nowhere'],
                   'demo_web.py': ['nowhere', 'none'],
                   'make_demo_data.py': ['--forec']}
    calls = [[f'tools/{name}', *words] for name in TOOLS
             for words in (['--help'], wrong_paths.get(name, ['nowhere']))]
    calls += [[name, '--help'] for name in ('train.py', 'test.py')]
    found = json.loads(run('python', '-c', SCRIPT, json.dumps(calls)))
    for call, (code, text, heavy) in zip(calls, found):
        assert not heavy, f'{call} imports {heavy}'
        if call[1] == '--help':
            assert code == 0 and 'usage: ' in text, call
        elif 'make_demo_data' in call[0]:
            assert code == 2 and '--forec is unknown: did you mean --force?' in text
        else:
            assert code == 1 and len(text.splitlines()) == 1, text
            assert f'nowhere does not exist in {ROOT}' in text or 'gradio' in text


def test_options_that_are_given_twice_add_up(parse):
    args = parse('train.py', TINY, '--cfg-options', 'optimizer.lr=0.1', 'runner.max_iters=3',
                 '--device', 'cpu', '--options', 'runner.max_iters=5')
    assert args.cfg_options == {'optimizer.lr': '0.1', 'runner.max_iters': '5'}
    assert parse('train.py', TINY).cfg_options == {}


def test_the_last_of_the_options_holds(parse):
    """dist_train.sh passes --deterministic, and the user's options after it."""
    assert not parse('train.py', TINY).deterministic
    assert not parse('train.py', TINY, '--deterministic', '--no-deterministic').deterministic
