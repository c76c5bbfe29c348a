"""The panel of an evaluation: which images, and what is kept and drawn of them."""
import pickle

import numpy as np
import pytest
from helpers.data import write_config
from mmcv import Config

from mmseg_custom.datasets.build import build_test_dataset
from mmseg_custom.engine.prediction_panel import PredictionPanel, split, spread
from mmseg_custom.visualization.files import read_image
from mmseg_custom.visualization.grid import picture_grid
from mmseg_custom.visualization.predictions import read_classes


@pytest.mark.parametrize('total, count, chosen', [
    (2000, 4, [250, 750, 1250, 1750]), (3, 8, [0, 1, 2]), (3, 1, [1]), (0, 4, [])])
def test_images_are_spread_over_the_data(total, count, chosen):
    assert spread(total, count) == chosen


def test_pictures_are_those_of_the_whole_labels(shared_data, tmp_path):
    config = write_config(tmp_path / 'config.py', shared_data)
    dataset = build_test_dataset(Config.fromfile(config).data.val)
    panel, rng = PredictionPanel(dataset, 2), np.random.default_rng(0)
    predictions = [rng.integers(0, 5, read_classes(dataset, i).shape) for i in range(3)]
    keep = panel.keeping(lambda labels, indices: [f'result {indices[0]}'])
    found = [keep([labels], [i])[0] for i, labels in enumerate(predictions)]
    results, shown = split(pickle.loads(pickle.dumps(found)))  # as from another rank
    assert results == ['result 0', 'result 1', 'result 2']
    assert [one.index for one in shown] == panel.chosen == [0, 2]
    assert all(one.labels.dtype == np.uint8 for one in shown)
    for picture, number, index in zip(panel.pictures(shown), (0, 1), panel.chosen):
        name = dataset.img_infos[index]['filename']
        row = (read_image(f'{dataset.img_dir}/{name}'), read_classes(dataset, index),
               predictions[index])
        assert (picture.number, picture.name) == (number, name)
        np.testing.assert_array_equal(picture.image, picture_grid(
            [row], dataset.CLASSES, np.array(dataset.PALETTE)))


def test_labels_are_results_where_nothing_is_measured_at_once():
    panel = PredictionPanel(range(4), 1)
    labels = np.zeros((9, 9), int)
    assert split(panel.keeping(None)([labels], [2]))[0][0] is labels
    assert panel.keeping(None)([labels], [1])[0] is labels
