"""Names and kinds of metrics in MLflow; runs are in test_killed_runs.py."""
import pytest

from mmseg_custom.engine.tracking.mlflow_tracker import _allowed, _beside, _kind_of, _short


@pytest.mark.parametrize('name, kind', [
    ('train/loss', 'train'), ('val/mIoU', 'val'), ('val/0_mIoU', 'val'),
    ('val/loss_val', 'val_loss'), ('learning_rate', None), ('val/decode.loss_ce_val', None),
    ('val/IoU.wall', None)])
def test_a_metric_tells_the_kind_of_its_line(name, kind):
    assert _kind_of(name) == kind


def test_names_and_values_that_mlflow_takes(tmp_path):
    assert _allowed('val/IoU.trash can, bin (grey)') == 'val/IoU.trash can_ bin _grey_'
    assert _short('x' * 600) == 'x' * 497 + '...'
    assert _beside(f'sqlite:///{tmp_path}/a.db') == f'{tmp_path}/mlruns'
    assert _beside(None) is _beside('http://server') is None
