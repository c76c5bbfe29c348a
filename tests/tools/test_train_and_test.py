"""Training and testing with the commands that people use."""
import errno
import json
import shutil
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from helpers.commands import ROOT, free_port, run
from helpers.data import draw_data, write_config
from PIL import Image


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    """A folder with data, a config of 4 iterations, and its run by two processes."""
    folder = tmp_path_factory.mktemp('trained')
    write_config(folder / 'config.py', draw_data(folder))
    run('sh', 'dist_train.sh', folder / 'config.py', 2, '--work-dir', folder / 'run', '--seed', 0,
        PORT=free_port())
    return folder


def figures(folder: Path) -> dict:
    return json.loads(next(folder.glob('eval_*.json')).read_text())['metric']


def test_two_processes_train_and_evaluate(trained):
    names = {path.name for path in (trained / 'run').iterdir()}
    assert {'iter_2.pth', 'iter_4.pth', 'latest.pth', 'best_mIoU_iter_4.pth', 'config.py'} <= names
    assert Image.open(trained / 'run/curves.png').size[0] == 1200
    checkpoint = torch.load(trained / 'run/latest.pth', weights_only=True)
    assert checkpoint['meta']['iter'] == 4 and len(checkpoint['meta']['CLASSES']) == 150
    assert isinstance(checkpoint['meta']['seed'], int)
    text = next((trained / 'run').glob('*.log')).read_text()
    assert 'attention kernel: torch SDPA' in text and '4 images a step' in text
    page = (trained / 'run/README.md').read_text()
    assert '| Engine | ddp: 2 process(es) on the CPU |' in page and '**Finished**' in page
    assert f'\nsh dist_train.sh {trained}/config.py 2 --work-dir {trained}/run --seed 0\n' in page


def test_figures_do_not_depend_on_the_number_of_processes(zygote, trained, tmp_path):
    common = ['--eval', 'mIoU', '--work-dir']
    zygote.run('tools/test.py', trained / 'config.py', trained / 'run/latest.pth', *common,
               tmp_path / 'one')
    # What the script has torchrun run, whose processes are forks here.
    words = run('sh', 'dist_test.sh', trained / 'config.py', trained / 'run/latest.pth', 2, *common,
                tmp_path / 'two', PYTHON='echo').split()
    tool = words.index(f'{ROOT}/tools/test.py')
    assert '--nproc_per_node=2' in words[:tool]
    zygote.run(*words[tool:], ranks=2)
    assert figures(tmp_path / 'one') == figures(tmp_path / 'two')
    assert set(figures(tmp_path / 'one')) > {'mIoU', 'mAcc', 'aAcc'}


def test_out_show_and_augmented_test_from_the_root(zygote, trained, tmp_path):
    zygote.run('test.py', trained / 'config.py', trained / 'run/latest.pth', '--aug-test', '--out',
               tmp_path / 'out.pkl', '--show-dir', tmp_path / 'show', '--work-dir', tmp_path)
    labels = mmcv.load(tmp_path / 'out.pkl')
    assert len(labels) == 3 and labels[0].ndim == 2
    assert len(list((tmp_path / 'show').glob('*.jpg'))) == 3


def test_target_is_tried_before_and_results_are_kept_after(trained, run_tool, tmp_path,
                                                           monkeypatch):
    def test(*options):
        code, out, error = run_tool('test.py', trained / 'config.py', 'none', '--device', 'cpu',
                                    *options)
        assert code == 1 and 'Traceback' not in error
        return out, error.strip().splitlines()[-1]

    monkeypatch.chdir(tmp_path)
    out, line = test('--out', '/proc/results.pkl', '--work-dir', tmp_path / 'one')
    assert line.startswith('error: /proc/results.pkl: was not written') and 'image/s' not in out
    (tmp_path / 'a.pkl').mkdir()
    assert 'it is a folder' in test('--out', tmp_path / 'a.pkl', '--work-dir', tmp_path)[1]

    dump = mmcv.dump

    def full(content, path, **options):
        if '/full/' in str(path):
            raise OSError(errno.ENOSPC, 'No space left on device', str(path))
        dump(content, path, **options)

    monkeypatch.setattr(mmcv, 'dump', full)
    _, line = test('--eval', 'mIoU', '--out', tmp_path / 'full/results.pkl', '--work-dir',
                   tmp_path / 'two')
    kept = tmp_path / 'two/results.pkl'
    assert line == (f'error: {tmp_path}/full/results.pkl could not be written: its content is in '
                    f'{kept}')
    assert len(mmcv.load(kept)) == 3 and list((tmp_path / 'two').glob('eval_*.json'))


def test_format_only_needs_no_labels(zygote, trained, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(next(trained.glob('ADEC*')), data)
    shutil.rmtree(data / 'annotations')
    zygote.run('tools/test.py', trained / 'config.py', 'none', '--format-only', '--eval-options',
               f'imgfile_prefix={tmp_path / "files"}', '--work-dir', tmp_path, '--cfg-options',
               f'data.test.data_root={data}')
    files = sorted((tmp_path / 'files').iterdir())
    assert [file.name for file in files] == [f'ADE_val_{i:08d}.png' for i in (1, 2, 3)]
    labels = np.array(Image.open(files[0]))
    assert labels.min() >= 1 and labels.max() <= 150


def test_auto_resume_skips_a_checkpoint_that_was_cut_short(zygote, trained, tmp_path):
    work_dir = tmp_path / 'run'
    shutil.copytree(trained / 'run', work_dir, symlinks=True)
    newest = work_dir / 'iter_4.pth'
    newest.write_bytes(newest.read_bytes()[:-500])
    (work_dir / 'iter_6.pth.part').write_bytes(b'half')
    text = zygote.run('train.py', trained / 'config.py', '--work-dir', work_dir, '--auto-resume',
                      '--no-validate', '--cfg-options', 'runner.max_iters=3',
                      'data.samples_per_gpu=4')
    assert 'iter_4.pth is cut short' in text and 'resumed after iteration 2' in text
    assert not (work_dir / 'iter_6.pth.part').exists()


@pytest.mark.parametrize('arguments, message', [
    (['CONFIG', '--device', 'cuda'], 'error: --device cuda: '),
    (['CONFIG', '--cfg-options', 'model.backbone.dept=2'], "unknown key in model.backbone: 'dept'"),
    (['CONFIG', '--cfg-options', 'model.backbone.pretrained=weights.pth'],
     'pretrained file weights.pth does not exist'),
    (['CONFIG', '--cfg-options', 'data.train.img_dir=images/none'], 'images/none does not exist'),
    (['CONFIG', '--load-from', 'gone.pth'], 'gone.pth'),
])
def test_wrong_input_is_one_line(trained, tmp_path, run_tool, arguments, message):
    if '--device' in arguments and torch.cuda.is_available():
        pytest.skip('there is a GPU')
    arguments = [trained / 'config.py' if word == 'CONFIG' else word for word in arguments]
    code, _, text = run_tool('train.py', *arguments, '--work-dir', tmp_path)
    last = text.strip().splitlines()[-1]
    assert code == 1
    assert last.startswith('error: ') and message in last
    assert 'Traceback' not in text


@pytest.mark.slow
def test_bad_file_in_a_worker_of_two_processes(trained, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(next(trained.glob('ADEC*')), data)
    for path in (data / 'images/training').iterdir():
        path.write_bytes(b'no image')
    text = run('sh', 'dist_train.sh', trained / 'config.py', 2, '--work-dir', tmp_path / 'run',
               '--cfg-options', f'data.train.data_root={data}', 'data.workers_per_gpu=1', code=1,
               PORT=free_port())
    assert 'Traceback' not in text
    last = text.strip().splitlines()[-1]
    assert last.startswith('the process of rank') and 'cannot be decoded' in last


def test_debug_shows_the_traceback(zygote, tmp_path):
    text = zygote.run('train.py', 'configs/tiny/full_tuning_tiny.py', '--debug', '--work-dir',
                      tmp_path, '--cfg-options', 'optimzer.lr=1', code=1)
    assert 'Traceback' in text and "nothing reads 'optimzer'" in text
