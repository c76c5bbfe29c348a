"""Every tool that computes, with its option --device."""
import json

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.gpu


@pytest.fixture(scope='module')
def checkpoint(zygote, device, small_config, tmp_path_factory):
    """A checkpoint of the last iteration of a training on the device."""
    work_dir = tmp_path_factory.mktemp('tools') / 'run'
    zygote.train(small_config, '--work-dir', work_dir, '--device', device, '--seed', 0,
                 '--cfg-options', 'precision=fp32')
    return work_dir / 'latest.pth'


@pytest.fixture
def tool(run_tool, device):
    """Runs a tool on the device: (name, *arguments) -> what it printed."""
    def tool(name: str, *arguments: object) -> str:
        code, out, error = run_tool(name, *arguments, '--device', device)
        assert code == 0, f'{out}\n{error}'[-3000:]
        return out + error
    return tool


def test_test(tool, run_tool, exact_float32, small_config, checkpoint, tmp_path):
    options = [small_config, checkpoint, '--eval', 'mIoU', 'mBIoU', '--cfg-options',
               'precision=fp32', '--work-dir']
    tool('test.py', *options, tmp_path / 'here')
    code, *_ = run_tool('test.py', *options, tmp_path / 'cpu', '--device', 'cpu')
    metrics = [json.loads(next((tmp_path / name).glob('eval_*.json')).read_text())['metric']
               for name in ('here', 'cpu')]
    assert code == 0 and metrics[0] == pytest.approx(metrics[1], abs=5e-3, nan_ok=True)
    text = tool('test.py', small_config, checkpoint, '--aug-test', '--out', tmp_path / 'out.pkl',
                '--show-dir', tmp_path / 'show', '--work-dir', tmp_path)
    assert len(list((tmp_path / 'show').glob('*.jpg'))) == 2, text


def test_image_demo(tool, small_config, checkpoint, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(
        tmp_path / 'a.png')
    tool('image_demo.py', tmp_path / 'a.png', small_config, checkpoint, '--out', tmp_path / 'out')
    assert Image.open(tmp_path / 'out/labels/a.png').size == (90, 60)


def test_doctor(run_tool, device, small_config):
    _, out, _ = run_tool('doctor.py', small_config, '--json', '--device', device)
    report = json.loads(out)
    assert report['memory']['device'] == device and report['rates']


def test_sweep(tool, small_config, tmp_path):
    tool('sweep.py', small_config, '--lr', 1e-3, '--work-dir', tmp_path, '--no-validate',
         '--cfg-options', 'model.backbone.freeze_vit=True', 'model.backbone.drop_path_rate=0.0',
         'runner.max_iters=2')
    assert json.loads((tmp_path / 'sweep.json').read_text())['heads'][0]['state'] == 'finished'


def test_cache(tool, small_config, tmp_path):
    tool('cache.py', 'build', small_config, '--seed', 5, '--cfg-options',
         'model.backbone.freeze_vit=True', 'model.backbone.drop_path_rate=0.0',
         f'feature_cache.dir={tmp_path}/cache', 'feature_cache.views=1')
    assert list((tmp_path / 'cache').rglob('view*'))
