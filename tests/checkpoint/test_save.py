import os
import signal

import numpy as np
import pytest
import torch
from helpers.logs import logged
from helpers.tiny_networks import Segmentor, same, tiny, write_flat
from mmcv.runner import save_checkpoint as mmcv_save_checkpoint

from mmseg_custom.checkpoint import load_optimizer, open_checkpoint
from mmseg_custom.checkpoint.export import write_pth
from mmseg_custom.checkpoint.files import safe_load
from mmseg_custom.checkpoint.metadata import plain, trained_state_dict
from mmseg_custom.checkpoint.save import save_checkpoint
from mmseg_custom.checkpoint.work_dir import (
    is_whole,
    newest_whole,
    point_latest_to,
    remove_leftovers,
)
from mmseg_custom.files import SaveError


def write_checkpoint(folder, number: int, kind: str = 'iter') -> str:
    path = str(folder / f'{kind}_{number}.pth')
    write_pth(path, dict(meta=dict(iter=number), state_dict={'decode_head.x': torch.arange(1000.)}))
    return path


def test_a_trained_backbone_is_saved_whole_as_mmcv_does(tmp_path):
    model = Segmentor(pretrained=write_flat(tmp_path))
    optimizer = torch.optim.AdamW(model.parameters())
    ours, theirs = str(tmp_path / 'ours.pth'), str(tmp_path / 'theirs.pth')
    save_checkpoint(model, ours, optimizer, dict(iter=1))
    mmcv_save_checkpoint(model, theirs, optimizer, dict(iter=1))
    ours, theirs = torch.load(ours), torch.load(theirs)
    assert same(ours['state_dict'], theirs['state_dict'])
    names = ours['optimizer']['param_groups'][0].pop('param_names')
    assert names == [name for name, _ in model.named_parameters()]
    assert ours['optimizer'] == theirs['optimizer'] and ours['meta'] == dict(iter=1)


def test_a_frozen_backbone_is_only_referred_to(tmp_path):
    flat = write_flat(tmp_path)
    model = Segmentor(pretrained=flat, freeze_vit=True)
    state_dict, entry = trained_state_dict(model)
    assert all(name.startswith('decode_head.') for name in state_dict)
    assert entry['path'] == flat and len(entry['sha256']) == 64


def test_the_linear_recipe_of_the_6b_network_stays_below_10_megabytes(tmp_path):
    model = Segmentor(pretrained=write_flat(tmp_path), freeze_vit=True)
    model.decode_head = torch.nn.ModuleDict(dict(
        norm=torch.nn.BatchNorm2d(3200), conv_seg=torch.nn.Conv2d(3200, 150, 1)))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    for parameter in model.decode_head.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    save_checkpoint(model, str(tmp_path / 'iter_1.pth'), optimizer, dict(config='x' * 10_000))
    assert 5e6 < os.path.getsize(tmp_path / 'iter_1.pth') < 10e6


@pytest.mark.parametrize('why', ['random weights', 'other weights', 'no backbone'])
def test_without_its_file_everything_is_saved(why, tmp_path):
    model = Segmentor(pretrained=None if why == 'random weights' else write_flat(tmp_path),
                      freeze_vit=True)
    if why == 'other weights':
        model.load_state_dict(Segmentor().state_dict())
    if why == 'no backbone':
        model = model.decode_head
    state_dict, entry = trained_state_dict(model)
    assert entry is None and same(state_dict, model.state_dict())


def test_a_frozen_part_that_is_not_in_the_file_is_saved(tmp_path):
    flat = str(tmp_path / 'deep.pth')
    torch.save(tiny(depth=4, out_indices=[3]).state_dict(), flat)
    model = Segmentor(pretrained=flat, with_fpn=True, depth=4, out_indices=[0, 1, 2, 3])
    model.requires_grad_(False)
    state_dict, _ = trained_state_dict(model)
    assert 'backbone.up1.0.weight' in state_dict and 'backbone.cls_token' not in state_dict


def test_wrappers_are_taken_off(tmp_path):
    model = Segmentor()
    wrapped = torch.nn.Module()
    wrapped.module = torch.nn.Module()
    wrapped.module.module = model
    save_checkpoint(wrapped, str(tmp_path / 'x.pth'))
    assert same(torch.load(tmp_path / 'x.pth')['state_dict'], model.state_dict())


def test_several_optimizers(tmp_path):
    model = Segmentor()
    optimizers = dict(a=torch.optim.SGD(model.parameters(), lr=1))
    save_checkpoint(model, str(tmp_path / 'x.pth'), optimizers)
    saved = torch.load(tmp_path / 'x.pth')['optimizer']['a']
    assert len(saved['param_groups'][0].pop('param_names')) == len(list(model.parameters()))
    assert saved == optimizers['a'].state_dict()
    optimizers['a'].param_groups[0]['lr'] = 2
    load_optimizer(optimizers, open_checkpoint(str(tmp_path / 'x.pth')), model)
    assert optimizers['a'].param_groups[0]['lr'] == 1


def test_metadata_becomes_plain(tmp_path):
    meta = dict(best=np.float32(0.5), iters=(np.int64(3), None), palette=np.eye(2), when=range(2),
                path=tmp_path, names={'x'}, nested=dict(flag=np.bool_(True)))
    save_checkpoint(Segmentor(), str(tmp_path / 'x.pth'), meta=meta)
    read = torch.load(tmp_path / 'x.pth', weights_only=True)['meta']
    assert torch.equal(read.pop('palette'), torch.eye(2, dtype=torch.float64))
    assert read == dict(best=0.5, iters=(3, None), when=[0, 1], path=str(tmp_path), names=['x'],
                        nested=dict(flag=True))


def test_plain_keeps_what_is_plain():
    value = {'a': [1, 2.5, 'x', None, True, b'y', (1, 2)]}
    assert plain(value) == value


def test_latest_is_a_link_that_moves_on(tmp_path):
    for number in (1, 2):
        save_checkpoint(Segmentor(), str(tmp_path / f'iter_{number}.pth'), meta=dict(n=number),
                        link_latest=True)
        assert os.readlink(tmp_path / 'latest.pth') == f'iter_{number}.pth'
        assert safe_load(str(tmp_path / 'latest.pth'))[0]['meta']['n'] == number
    assert sorted(os.listdir(tmp_path)) == ['iter_1.pth', 'iter_2.pth', 'latest.pth']


def test_latest_is_a_copy_where_there_are_no_links(tmp_path, monkeypatch):
    path = write_checkpoint(tmp_path, 1)
    monkeypatch.setattr(os, 'symlink', lambda *args: (_ for _ in ()).throw(OSError('no links')))
    point_latest_to(path)
    assert not os.path.islink(tmp_path / 'latest.pth') and is_whole(tmp_path / 'latest.pth')


def test_a_link_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pth('iter_1.pth', dict(x=1))
    point_latest_to('iter_1.pth')
    assert safe_load('latest.pth')[0] == dict(x=1)


@pytest.fixture
def small_disk():
    """No file may grow beyond 200 kB, as if the disk were full then."""
    resource = pytest.importorskip('resource')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize('count, numbers', [(1, 100_000), (300, 1000), (1, 49_900), (3000, 1)])
def test_a_full_disk_leaves_the_earlier_file_and_the_process_alive(count, numbers, tmp_path,
                                                                   small_disk):
    path = write_checkpoint(tmp_path, 1)
    with open(path, 'rb') as file:
        before = file.read()
    with pytest.raises(SaveError, match='iter_1.pth was not written .* files are unchanged$'):
        write_pth(path, {str(i): torch.zeros(numbers) for i in range(count)})
    with open(path, 'rb') as file:
        assert file.read() == before
    assert os.listdir(tmp_path) == ['iter_1.pth']


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(SaveError, match=r'no/x.pth was not written .*does not exist'):
        write_pth(str(tmp_path / 'no' / 'x.pth'), {})


@pytest.mark.parametrize('kept', [0.999, 0.9, 0.5, 0.01, 0])
def test_a_file_that_was_cut_short_is_not_whole(kept, tmp_path):
    path = write_checkpoint(tmp_path, 1)
    assert is_whole(path)
    os.truncate(path, int(os.path.getsize(path) * kept))
    assert not is_whole(path)


def test_other_things_are_not_whole_checkpoints(tmp_path):
    (tmp_path / 'x').write_text('hello')
    assert not is_whole(tmp_path / 'x')
    assert not is_whole(tmp_path / 'missing')
    assert not is_whole(tmp_path)


def test_the_newest_whole_one_is_found_by_number(tmp_path):
    for number in (900, 1000, 2000):
        write_checkpoint(tmp_path, number)
    point_latest_to(write_checkpoint(tmp_path, 900))  # older than the others
    for name in ('best_mIoU_iter_9000.pth', 'iter_x.pth', 'iter_3000.pth.part'):
        (tmp_path / name).write_text('')
    assert newest_whole(str(tmp_path)) == str(tmp_path / 'iter_2000.pth')
    os.truncate(tmp_path / 'iter_2000.pth', 1000)
    with logged() as lines:
        assert newest_whole(str(tmp_path)) == str(tmp_path / 'iter_1000.pth')
    assert len(lines) == 1 and 'iter_2000.pth is cut short' in lines[0]
    assert f'{tmp_path}/iter_1000.pth is taken' in lines[0]


def test_epochs_count_too(tmp_path):
    write_checkpoint(tmp_path, 2, 'epoch')
    assert newest_whole(str(tmp_path)) == str(tmp_path / 'epoch_2.pth')


def test_an_empty_or_missing_work_dir_has_none(tmp_path):
    assert newest_whole(str(tmp_path)) is None
    assert newest_whole(str(tmp_path / 'missing')) is None


def test_leftovers_are_swept_and_nothing_else(tmp_path):
    keep = write_checkpoint(tmp_path, 1)
    (tmp_path / 'iter_2.pth.part').write_text('half')
    (tmp_path / 'video.part').write_text('not ours')
    assert remove_leftovers(str(tmp_path)) == [str(tmp_path / 'iter_2.pth.part')]
    assert sorted(os.listdir(tmp_path)) == [os.path.basename(keep), 'video.part']
