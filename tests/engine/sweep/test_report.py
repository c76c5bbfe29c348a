import json

from mmcv import Config

from mmseg_custom.engine.sweep.grid import Combination
from mmseg_custom.engine.sweep.records import SWEEP
from mmseg_custom.engine.sweep.report import PLOT, draw, report, table


def head(name, lr, score=None, state='finished', **more):
    return dict(name=name, settings=dict(head='linear', layers=47, lr=lr), state=state,
                reason=None, iterations=10, loss=1.25, mIoU=score, best_mIoU=score,
                best_iteration=10 if score else None, **more)


HEADS = [head('a', 1e-5, 0.25), head('b', 4e-5, 0.475), head('c', 1.0, None, 'diverged')]


def test_the_table_starts_with_the_best():
    lines = table(HEADS).splitlines()
    assert lines[0].split() == ['head', 'layers', 'lr', 'mIoU', 'best', 'at', 'loss']
    assert lines[1].startswith('*') and '4e-05' in lines[1] and '47.50' in lines[1]
    assert '25.00' in lines[2] and 'diverged' in lines[3] and '*' not in lines[2] + lines[3]


def test_a_panel_for_each_setting_that_varies():
    panels = draw(HEADS[:2]).axes
    assert [panel.get_xlabel() for panel in panels] == ['lr']
    assert [text.get_text() for text in panels[0].get_xticklabels()] == ['1e-05', '4e-05']


def test_the_report_is_read_from_the_folders_of_the_heads(tmp_path, caplog):
    found = [Combination(f'lr{lr:g}', dict(lr=lr), Config(dict(work_dir=f'{tmp_path}/lr{lr:g}')))
             for lr in (1e-3, 1e-2, 1e-1)]
    for one, scores in zip(found, ({5: 0.2, 10: 0.3}, {5: 0.5, 10: 0.4}, {})):
        folder = tmp_path / one.name
        folder.mkdir()
        (folder / 'x.log.json').write_text('{"env_info": ""}\n' + ''.join(
            json.dumps(dict(mode='train', iter=i, loss=10.0 / i)) + '\n' for i in (5, 10)))
        if scores:
            (folder / 'evaluations.json').write_text(json.dumps(
                {i: dict(mIoU=score) for i, score in scores.items()}))
            (folder / 'result.json').write_text(json.dumps(dict(state='finished', iterations=10)))
    heads = report(str(tmp_path), 0, found)
    assert [(one['mIoU'], one['best_mIoU'], one['best_iteration']) for one in heads] == [
        (0.3, 0.3, 10), (0.4, 0.5, 5), (None, None, None)]
    assert [one['state'] for one in heads] == ['finished', 'finished', 'started']
    written = json.loads((tmp_path / SWEEP).read_text())
    assert written['best'] == 'lr0.01' and written['heads'] == heads
    assert written['spread'] == dict(heads=2, least=0.3, most=0.5, mean=0.4, deviation=0.1)
    assert written['by_setting']['lr']['0.001']['mean'] == 0.3
    assert (tmp_path / PLOT).stat().st_size > 1000
