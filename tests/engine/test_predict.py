import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.data import SMALL_LINEAR, draw_data, prepare, write_config
from helpers.nesting import NESTINGS
from mmcv.parallel import MMDataParallel
from mmseg.apis import single_gpu_test
from mmseg.models.segmentors import EncoderDecoder
from PIL import Image

from mmseg_custom.engine import background, stop_signals
from mmseg_custom.engine import predict as loop
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.loaders import build_test_loader
from mmseg_custom.engine.painter import Painter
from mmseg_custom.engine.predict import predict, predict_all
from mmseg_custom.engine.predictions import save_partial
from mmseg_custom.engine.preemption import Preemption
from mmseg_custom.engine.stop_signals import StopRequested
from mmseg_custom.engine.test import build_test_model
from mmseg_custom.errors import InputError


def setting(root, batch=1, skip_bad=False, kind=None, aug=False):
    """Model, data set and loader of a test run on a small data set."""
    settings = {'precision': 'fp32', 'data.test_dataloader.samples_per_gpu': batch}
    if kind:
        settings['model.type'] = kind
    if aug:
        settings.update({'data.test.pipeline.1.flip': True,
                         'data.test.pipeline.1.img_ratios': [0.5, 1.75]})
    config = write_config(root / 'config.py', root, extra=SMALL_LINEAR)
    run = prepare(config, ['test'], settings, checkpoint='none')
    return build_test_model(run), run.data['test'], build_test_loader(run, 'test', skip_bad)


def image_of(root, number):
    return root / f'images/validation/ADE_val_{number:08d}.jpg'


@pytest.fixture
def overlapped(monkeypatch):
    """Lets results be computed in a thread beside, as with a GPU."""
    monkeypatch.setattr(background, '_thread_for', lambda device: ThreadPoolExecutor(1))


@pytest.mark.parametrize('aug', [False, True])
def test_the_loop_gives_what_that_of_mmseg_gives(own_data, aug):
    """With mmseg's segmentor in mmseg's loop, with ours in it, and images sharing batches."""
    model, dataset, loader = setting(own_data, kind='EncoderDecoder', aug=aug)
    assert type(model) is EncoderDecoder
    wrapped = MMDataParallel(model)
    wrapped.device_ids = []
    expected = single_gpu_test(wrapped, loader)
    assert len({labels.shape for labels in expected}) > 1
    runs = [predict(model, loader, 'cpu')]
    for batch in (1, 2, 3):
        ours, _, batches = setting(own_data, batch=batch, aug=aug)
        runs.append(predict(ours, batches, 'cpu'))
    for found in runs:
        assert found.stopped_by is None and found.seconds > 0
        for labels, theirs in zip(found.in_order(), expected, strict=True):
            assert (labels == theirs).mean() > 0.9999
    wrapped = MMDataParallel(ours)
    wrapped.device_ids = []
    for labels, theirs in zip(single_gpu_test(wrapped, batches), expected, strict=True):
        assert (labels == theirs).mean() > 0.9999


@pytest.mark.parametrize('kind', ['list', 'lists of folders'])
def test_each_of_several_data_sets_is_predicted_and_evaluated(own_data, kind):
    config = write_config(own_data / 'config.py', own_data, extra=SMALL_LINEAR)
    cfg, nesting = load_config(str(config), dict(precision='fp32')), NESTINGS[kind]
    cfg.data.test = nesting.of(dict(cfg.data.test))
    run = prepare(cfg, ['test'], checkpoint='none')
    dataset = run.data['test']
    found = predict(build_test_model(run), build_test_loader(run, 'test'), 'cpu', dataset.pre_eval)
    assert found.stopped_by is None and sorted(found.results) == list(range(nesting.length))
    assert 'mIoU' in ' '.join(dataset.evaluate(found.in_order(), metric='mIoU'))


@pytest.mark.parametrize('batch', [1, 2])
def test_results_beside_are_those_of_one_after_the_other(own_data, overlapped, tmp_path, batch):
    model, dataset, loader = setting(own_data, batch=batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(background, '_thread_for', lambda device: None)
        expected = predict(model, loader, 'cpu', dataset.pre_eval)
    order = []

    def keep(labels, indices):
        time.sleep(0.05 * (3 - indices[0]))  # the first is the slowest
        order.extend(indices)
        return dataset.pre_eval(labels, indices)

    found = predict(model, loader, 'cpu', keep, Painter(dataset, str(tmp_path / 'show')))
    assert found.stopped_by is None and order == [0, 1, 2] == list(found.results)
    for one, other in zip(found.in_order(), expected.in_order(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert len(list((tmp_path / 'show').iterdir())) == 3


def test_the_next_batch_is_predicted_before_the_results_of_one(tmp_path, overlapped, monkeypatch):
    """However many images a batch has."""
    model, dataset, loader = setting(draw_data(tmp_path, train=1, val=6), batch=3)
    predict_labels, second, calls = loop.predict_labels, threading.Event(), []

    def counted(*args):
        calls.append(1)
        if len(calls) == 2:
            second.set()
        return predict_labels(*args)

    monkeypatch.setattr(loop, 'predict_labels', counted)
    found = predict(model, loader, 'cpu',
                    lambda labels, indices: [second.wait(20) if indices[0] < 3 else True])
    assert found.in_order() == [True] * 6


def test_the_first_error_beside_ends_a_test(own_data, overlapped):
    """Also when the loop itself fails later; what was predicted before is kept."""
    model, dataset, loader = setting(own_data)
    image_of(own_data, 3).write_bytes(b'no image')
    label = own_data / 'annotations/validation/ADE_val_00000002.png'
    Image.fromarray(np.full((70, 70), 200, np.uint8)).save(label)

    def keep(labels, indices):
        time.sleep(0.1)
        return dataset.pre_eval(labels, indices)

    found = predict(model, loader, 'cpu', keep)
    assert 'holds 200' in str(found.stopped_by) and list(found.results) == [0]
    model, dataset, loader = setting(own_data, skip_bad=True)
    found = predict(model, loader, 'cpu', keep)
    assert found.stopped_by is None and list(found.results) == [0]
    assert 'holds 200' in found.skipped[1] and 'cannot be decoded' in found.skipped[2]


@pytest.mark.parametrize('beside', [False, True])
@pytest.mark.parametrize('batch', [1, 2])
def test_bad_image_is_skipped_where_asked_for(own_data, batch, beside, request):
    if beside:
        request.getfixturevalue('overlapped')
    model, dataset, loader = setting(own_data, batch=batch)
    whole = predict(model, loader, 'cpu', dataset.pre_eval)
    image_of(own_data, 2).write_bytes(b'no image')
    found = predict(model, loader, 'cpu', dataset.pre_eval)
    assert isinstance(found.stopped_by, InputError) and len(found.results) == batch % 2
    assert 'ADE_val_00000002.jpg cannot be decoded' in str(found.stopped_by)

    model, dataset, loader = setting(own_data, batch=batch, skip_bad=True)
    found = predict(model, loader, 'cpu', dataset.pre_eval)
    assert found.stopped_by is None and sorted(found.results) == [0, 2] and found.total == 3
    assert 'ADE_val_00000002.jpg' in found.skipped[1]
    for index in (0, 2):
        for one, other in zip(found.results[index], whole.results[index]):
            assert torch.equal(one, other)
    Image.fromarray(np.full((70, 70), 200, np.uint8)).save(
        own_data / 'annotations/validation/ADE_val_00000001.png')
    found = predict(model, loader, 'cpu', dataset.pre_eval)
    assert sorted(found.results) == [2] and 'holds 200' in found.skipped[0]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_results_so_far(own_data, tmp_path, number):
    model, dataset, loader = setting(own_data)
    before = signal.getsignal(number)

    def keep(labels, indices):
        if indices == [1]:
            os.kill(os.getpid(), number)
        return dataset.pre_eval(labels, indices)

    found = predict(model, loader, 'cpu', keep)
    assert isinstance(found.stopped_by, KeyboardInterrupt) and sorted(found.results) == [0, 1]
    line = save_partial(found, str(tmp_path / 'partial.pkl'), dataset)
    assert line.startswith('2 of 3 images are done') and 'partial.pkl' in line
    saved = pickle.loads((tmp_path / 'partial.pkl').read_bytes())
    assert saved['indices'] == [0, 1] and saved['filenames'][1] == 'ADE_val_00000002.jpg'
    assert len(saved['results']) == 2 and saved['total'] == 3
    assert signal.getsignal(number) is before


@pytest.mark.parametrize('signals', [1, 2])
def test_a_signal_finishes_what_is_under_way_and_a_second_one_does_not(
        own_data, overlapped, monkeypatch, signals):
    model, dataset, loader = setting(own_data)
    monkeypatch.setattr(stop_signals, 'ONE_KEYSTROKE', -1)
    done, begun = threading.Event(), []

    def keep(labels, indices):
        begun.extend(indices)
        for _ in range(signals if indices == [0] else 0):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # for the main thread to handle it
        done.wait(0.1 if signals == 1 else 20)
        return dataset.pre_eval(labels, indices)

    found = predict(model, loader, 'cpu', keep)
    results = list(found.results)
    done.set()
    assert isinstance(found.stopped_by, KeyboardInterrupt)
    assert results == (begun if signals == 1 else []) and begun[0] == 0


def test_an_evaluation_is_left_for_a_signal(own_data):
    """After the batch in which it comes, not after the whole data set."""
    model, dataset, loader = setting(own_data)
    preemption, seen = Preemption(), []

    def keep(labels, indices):
        seen.append(1)
        preemption.signal = signal.SIGINT
        return labels

    with pytest.raises(StopRequested) as raised:
        predict_all([model], loader, 'cpu', keep, preemption=preemption)
    assert raised.value.signal == signal.SIGINT and len(seen) == 1


def test_pictures(own_data, tmp_path):
    model, dataset, loader = setting(own_data, batch=2)
    predict(model, loader, 'cpu', paint=Painter(dataset, str(tmp_path / 'show')))
    (own_data / 'annotations/validation/ADE_val_00000001.png').unlink()
    predict(model, loader, 'cpu', paint=Painter(dataset, str(tmp_path / 'plain')))
    for number in (1, 2, 3):
        image = Image.open(image_of(own_data, number))
        sizes = [Image.open(tmp_path / f'{folder}/ADE_val_{number:08d}.jpg').size
                 for folder in ('show', 'plain')]
        assert sizes[0][0] > 2 * image.width and sizes[0][1] > image.height
        assert (sizes[1] == sizes[0]) == (number > 1)  # without a label, the prediction is alone


def test_a_plugin_s_own_picture_is_kept(own_data, tmp_path):
    model, dataset, loader = setting(own_data, batch=2)

    class OwnPicture(type(model)):
        def show_result(self, image, result, palette, show, out_file, opacity):
            Image.new('RGB', (7, 5)).save(out_file)

    OwnPicture.__module__ = 'a_plugin'
    OwnPicture.show_result.__module__ = 'a_plugin'
    model.__class__ = OwnPicture
    (tmp_path / 'show').mkdir()
    predict(model, loader, 'cpu', paint=Painter(dataset, str(tmp_path / 'show'), opacity=0.3))
    assert Image.open(tmp_path / 'show/ADE_val_00000001.jpg').size == (7, 5)


@pytest.mark.parametrize('total, ranks', [(7, 2), (2, 3), (6, 3)])
def test_ranks_share_images_once(monkeypatch, total, ranks):
    """The sampler of mmseg gives ranks equal shares, and repeats images for that."""
    indices = list(range(total)) * ranks
    share = -(-total // ranks)
    found = []
    for rank in range(ranks):
        monkeypatch.setattr(loop, 'get_dist_info', lambda rank=rank: (rank, ranks))
        mine = indices[:share * ranks][rank::ranks]
        batches = [mine[i:i + 2] for i in range(0, share, 2)]
        loader = SimpleNamespace(batch_sampler=batches, dataset=range(total))
        found += [i for batch in loop._indices(loader) for i in batch if i is not None]
    assert sorted(found) == list(range(total))
