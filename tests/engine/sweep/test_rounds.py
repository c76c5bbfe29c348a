import pytest
import torch
from mmcv import Config

from mmseg_custom.checkpoint.export import write_pth
from mmseg_custom.engine.sweep import rounds
from mmseg_custom.engine.sweep.grid import combinations
from mmseg_custom.errors import InputError

CONFIG = 'configs/tiny/linear_probing_tiny.py'
LINEAR = 4 * (192 * 150 + 150 + 2 * 192) * 4  # bytes: weight, gradient and two moments in float32


@pytest.fixture
def heads(tmp_path):
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path)
    cfg.sweep = dict(lr=[1e-3, 1e-2, 1e-1], head=['linear', 'upernet'])
    return combinations(cfg)


def assigned(heads, monkeypatch, free=2**30, auto_resume=True, **options):
    monkeypatch.setattr(rounds, 'free_bytes', lambda device: free)
    found = rounds.assign_rounds(heads, 'cpu', auto_resume, **options)
    return [(part.start, [one.name for one, _ in part.heads]) for part in found]


def save(tmp_path, name, *iterations):
    (tmp_path / name).mkdir()
    for iteration in iterations:
        write_pth(str(tmp_path / name / f'iter_{iteration}.pth'), dict(
            meta=dict(iter=iteration), state_dict={'decode_head.x': torch.ones(1)}))


def test_what_fits_goes_together(heads, monkeypatch):
    names = [one.name for one in heads]
    assert assigned(heads, monkeypatch) == [(0, names)]
    assert assigned(heads, monkeypatch, heads_at_once=4) == [(0, names[:4]), (0, names[4:])]
    linear = heads[:3]
    assert assigned(linear, monkeypatch, free=int(LINEAR * 2 / 0.75) + 9) == [
        (0, names[:2]), (0, names[2:3])]


def test_what_does_not_fit_is_refused_with_the_numbers(heads, monkeypatch):
    message = rf'{heads[0].name}: its weights.* take [\d.]+ KiB, and [\d.]+ KiB are left'
    with pytest.raises(InputError, match=message):
        assigned(heads[:1], monkeypatch, free=LINEAR // 2)


def test_heads_resume_from_the_last_checkpoint_that_all_have(heads, monkeypatch, tmp_path):
    names = [one.name for one in heads[:3]]
    save(tmp_path, names[0], 2, 4, 6)
    save(tmp_path, names[1], 2, 4)
    assert assigned(heads[:3], monkeypatch) == [(4, names[:2]), (0, names[2:])]
    assert assigned(heads[:3], monkeypatch, auto_resume=False) == [(0, names)]
    (tmp_path / names[1] / 'iter_4.pth').write_bytes(b'cut short')
    assert assigned(heads[:3], monkeypatch) == [(2, names[:2]), (0, names[2:])]


def test_heads_without_a_common_iteration_resume_one_by_one(heads, monkeypatch, tmp_path):
    names = [one.name for one in heads[:2]]
    save(tmp_path, names[0], 6)
    save(tmp_path, names[1], 4)
    assert assigned(heads[:2], monkeypatch) == [(6, names[:1]), (4, names[1:])]
