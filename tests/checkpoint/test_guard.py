import functools
import http.server
import os
import threading

import mmcv.runner.checkpoint as mmcv_checkpoint
import pytest
import torch
from helpers.tiny_networks import Segmentor, same, write_flat
from mmcv.runner import IterBasedRunner, load_checkpoint

from mmseg_custom.checkpoint.guard import install_safe_loading
from mmseg_custom.checkpoint.save import save_checkpoint
from mmseg_custom.errors import InputError


class Attack:
    def __reduce__(self):
        return os.mkdir, ('pwned',)


@pytest.fixture(autouse=True)
def guard(monkeypatch, tmp_path):
    """The guard, for the time of a test; files are served and written in a folder of its own."""
    loader = mmcv_checkpoint.CheckpointLoader
    monkeypatch.setattr(loader, '_schemes', dict(loader._schemes))
    monkeypatch.setattr(mmcv_checkpoint, 'load_from_http', mmcv_checkpoint.load_from_http)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('MMCV_HOME', str(tmp_path))
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    monkeypatch.chdir(tmp_path)
    install_safe_loading()
    yield
    assert not os.path.exists('pwned')


@pytest.fixture
def address(tmp_path):
    """Serves the folder of the test on the loopback."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f'http://127.0.0.1:{server.server_address[1]}'
        server.shutdown()
        thread.join()


def write_attack() -> None:
    torch.save(dict(meta={}, state_dict=Attack()), 'bad.pth')


def write_good() -> Segmentor:
    model = Segmentor()
    torch.save(dict(meta=dict(iter=3), state_dict=model.state_dict()), 'good.pth')
    return model


def test_mmcv_reads_what_is_good():
    good, model = write_good(), Segmentor()
    assert load_checkpoint(model, 'good.pth', map_location='cpu')['meta'] == dict(iter=3)
    assert same(model.state_dict(), good.state_dict())


def test_mmcv_reads_a_small_checkpoint_as_a_whole_one(tmp_path):
    trained = Segmentor(pretrained=write_flat(tmp_path), freeze_vit=True)
    save_checkpoint(trained, 'iter_1.pth', meta=dict(iter=1))
    model = Segmentor()
    load_checkpoint(model, 'iter_1.pth', map_location='cpu', strict=True)
    assert same(model.state_dict(), trained.state_dict())


def test_a_resumed_run_writes_small_checkpoints(tmp_path):
    flat = write_flat(tmp_path)
    trained = Segmentor(pretrained=flat, freeze_vit=True)
    save_checkpoint(trained, 'iter_1.pth', meta=dict(iter=1))
    resumed = Segmentor(pretrained=flat, freeze_vit=True)
    load_checkpoint(resumed, 'iter_1.pth')
    save_checkpoint(resumed, 'iter_2.pth', meta=dict(iter=2))
    assert os.path.getsize('iter_2.pth') == os.path.getsize('iter_1.pth')


def test_a_local_file_runs_nothing():
    write_attack()
    with pytest.raises(InputError, match='bad.pth was refused: it asks for posix.mkdir'):
        load_checkpoint(Segmentor(), 'bad.pth')


def test_an_address_runs_nothing(address):
    write_attack()
    with pytest.raises(InputError, match='bad.pth was refused'):
        load_checkpoint(Segmentor(), address + '/bad.pth')


def test_an_address_is_fetched_once(address):
    good, model = write_good(), Segmentor()
    load_checkpoint(model, address + '/good.pth')
    assert same(model.state_dict(), good.state_dict())
    os.remove('good.pth')
    load_checkpoint(model, address + '/good.pth')


def test_an_address_that_has_nothing(address):
    with pytest.raises(InputError, match='none.pth cannot be downloaded: .*404'):
        load_checkpoint(Segmentor(), address + '/none.pth')


@pytest.mark.parametrize('scheme', ['open-mmlab', 'openmmlab'])
def test_the_zoo_leads_to_safe_files(scheme, tmp_path):
    (tmp_path / 'open_mmlab.json').write_text('{"mine/bad": "bad.pth", "mine/good": "good.pth"}')
    write_attack()
    write_good()
    load_checkpoint(Segmentor(), f'{scheme}://mine/good')
    with pytest.raises(InputError, match='was refused'):
        load_checkpoint(Segmentor(), f'{scheme}://mine/bad')
    with pytest.raises(InputError, match="no 'mine/none'"):
        load_checkpoint(Segmentor(), f'{scheme}://mine/none')


def test_the_zoo_of_torchvision_goes_through_the_same_door(address, monkeypatch):
    write_attack()
    monkeypatch.setattr(mmcv_checkpoint, 'get_torchvision_models',
                        lambda: dict(resnet50=address + '/bad.pth'))
    with pytest.raises(InputError, match='was refused'):
        load_checkpoint(Segmentor(), 'torchvision://resnet50')


@pytest.mark.parametrize('path', ['pavi://x', 's3://bucket/x.pth', 'cluster:s3://bucket/x.pth'])
def test_other_stores_are_refused(path):
    with pytest.raises(InputError, match='fetch the file'):
        load_checkpoint(Segmentor(), path)


def test_resuming_runs_nothing():
    write_attack()
    model = Segmentor()
    model.train_step = lambda *args: None
    runner = IterBasedRunner(model, work_dir='.', max_iters=1, logger=mmcv_logger(), meta={})
    with pytest.raises(InputError, match='was refused'):
        runner.resume('bad.pth', map_location='cpu')


def mmcv_logger():
    import logging
    return logging.getLogger('test_guard')
