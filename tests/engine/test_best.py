"""Records beside checkpoints that were damaged: the run goes on as if they were not there."""
import json

from helpers.mutations import mutations

from mmseg_custom.datasets.prepare.manifest import (
    PreparedManifest,
    read_manifest,
    write_manifest,
)
from mmseg_custom.engine import best
from mmseg_custom.engine.sweep import records


def test_best_score_of_a_damaged_file(tmp_path):
    messages = dict(best_score=0.5, best_ckpt='a.pth')
    best.write(str(tmp_path), 4, messages)
    assert best.read(str(tmp_path), 4) == messages and best.read(str(tmp_path), 5) is None
    content = json.loads((tmp_path / best.NAME).read_text())
    for name, changed in mutations(content):
        (tmp_path / best.NAME).write_text(json.dumps(changed))
        found = best.read(str(tmp_path), 4)
        assert found is None or isinstance(found, dict), name
        assert not isinstance((found or {}).get('best_score'), (list, dict)), name


def test_records_of_a_sweep_that_are_damaged(tmp_path):
    folder = str(tmp_path)
    for path, content in ((records.RESULT, dict(state='finished', iterations=4, loss=.5)),
                          (records.SCORES, {'2': dict(mIoU=.5), '4': dict(mIoU=.6, aAcc=.7)}),
                          (records.SWEEP, dict(seed=3))):
        for name, changed in mutations(content):
            (tmp_path / path).write_text(json.dumps(changed))
            assert isinstance(records.read_result(folder) or {}, dict), name
            assert all(isinstance(step, int) and isinstance(scores, dict)
                       for step, scores in records.read_scores(folder).items()), name
            assert isinstance(records.seed_of_sweep(folder) or 0, int), name
    for path in (records.RESULT, records.SCORES):
        (tmp_path / path).write_text('[' * 5000)
    assert records.read_result(folder) is None and records.read_scores(folder) == {}


def test_manifest_that_is_damaged(tmp_path):
    path = tmp_path / 'a.manifest.json'
    manifest = PreparedManifest('ade20k', '.', dict(train=1), {'a.jpg': (3, 'ab')},
                                dict(CMYK=['a.jpg is CMYK']))
    write_manifest(path, manifest)
    assert read_manifest(path) == manifest
    for name, changed in mutations(json.loads(path.read_text())):
        path.write_text(json.dumps(changed))
        found = read_manifest(path)
        assert found is None or isinstance(found, PreparedManifest), name
