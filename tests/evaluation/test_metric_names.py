"""Options of an evaluation: those that nothing reads."""
from types import SimpleNamespace

import pytest
from helpers.logs import logged
from mmseg.datasets import ADE20KDataset, CityscapesDataset, CustomDataset

from mmseg_custom.errors import InputError
from mmseg_custom.evaluation.metric_names import check_metrics, check_options


class Foreign(CustomDataset):
    """A data set of a plugin, whose evaluate may read any option."""

    def evaluate(self, results, **options):
        return options


def empty(kind, **kwargs):
    dataset = kind.__new__(kind)
    dataset.img_infos = []
    return SimpleNamespace(datasets=[dataset], **kwargs)


def test_metrics_of_another_data_set_are_refused():
    check_metrics(empty(CityscapesDataset), ['cityscapes'])
    with pytest.raises(InputError, match='--eval cityscapes: expected some of mIoU'):
        check_metrics(empty(ADE20KDataset).datasets[0], ['cityscapes'])


def test_options_that_nothing_reads_are_refused():
    check_options(empty(CityscapesDataset), ['imgfile_prefix'], formats=False)
    check_options(empty(ADE20KDataset), ['imgfile_prefix', 'to_label_id'], formats=True)
    check_options(empty(Foreign), ['anything'], formats=False)
    with pytest.raises(InputError, match="--eval-options imgfile_prefx: nothing reads it; did you "
                       "mean 'imgfile_prefix'"):
        check_options(empty(ADE20KDataset), ['imgfile_prefx'], formats=True)
    with pytest.raises(InputError, match='nan_to_num: nothing reads it; expected none'):
        check_options(empty(ADE20KDataset), ['nan_to_num'], formats=False)
    with logged() as lines:
        check_options(empty(ADE20KDataset), ['efficient_test'], formats=False)
    assert lines == ['--eval-options efficient_test has no effect here']
