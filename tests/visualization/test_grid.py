"""Pictures of labels: what is painted, which classes the legend has, which images are chosen."""
import shutil

import numpy as np
import pytest
from helpers.data import write_config
from mmcv import Config
from mmseg.datasets import build_dataset
from PIL import Image

from mmseg_custom.errors import InputError
from mmseg_custom.visualization import grid, overlay
from mmseg_custom.visualization.predictions import choose_rows, read_row

CLASSES = ('wall', 'bed ', 'sky', 'tree')
PALETTE = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0]])


def a_row(height, width, ground_truth, prediction):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return (image, np.resize(np.array(ground_truth, np.uint8), (height, width)),
            np.resize(np.array(prediction), (height, width)))


@pytest.fixture
def dataset(own_data, tmp_path):
    config = write_config(tmp_path / 'config.py', own_data)
    return build_dataset(Config.fromfile(config).data.val, dict(test_mode=True))


@pytest.fixture
def predictions(own_data, tmp_path):
    """A folder of predictions: the ground truth, and class 2 where there is none."""
    folder = tmp_path / 'predictions'
    folder.mkdir()
    for path in own_data.glob('annotations/validation/*.png'):
        labels = np.array(Image.open(path))
        labels[labels == 0] = 2
        Image.fromarray(labels).save(folder / path.name)
    return folder


def test_blend_mixes_paint_and_image():
    image = np.full((1, 2, 3), 100, np.uint8)
    out = overlay.blend(image, np.array([[0, 2]]), PALETTE, alpha=.25)
    np.testing.assert_array_equal(out, [[[125, 75, 75], [75, 75, 125]]])


def test_blend_hatches_what_is_not_labelled():
    image = np.full((16, 16, 3), 255, np.uint8)
    out = overlay.blend(image, np.full((16, 16), 255), PALETTE)
    assert out.max() < 100
    assert len(np.unique(out.reshape(-1, 3), axis=0)) == 2


@pytest.mark.parametrize('label', [4, 254, -1])
def test_blend_refuses_unknown_labels(label):
    with pytest.raises(ValueError, match=f'label {label}: expected 0..3 or 255'):
        overlay.blend(np.zeros((2, 2, 3), np.uint8), np.full((2, 2), label), PALETTE)


def test_legend_has_the_colours_of_the_classes_given_and_no_other():
    picture = np.asarray(overlay.legend([1, 3], CLASSES, PALETTE, width=300))
    colours = {tuple(c) for c in picture.reshape(-1, 3).tolist()}
    assert {tuple(PALETTE[1]), tuple(PALETTE[3])} <= colours
    assert not {tuple(PALETTE[0]), tuple(PALETTE[2])} & colours
    assert picture.shape[1] == 300


def test_legend_wraps_where_it_is_narrow():
    wide = overlay.legend([0, 1, 2, 3], CLASSES, PALETTE, width=900)
    narrow = overlay.legend([0, 1, 2, 3], CLASSES, PALETTE, width=60)
    assert narrow.height == 4 * wide.height


def test_grid_explains_exactly_the_classes_that_it_shows(monkeypatch):
    explained = []

    def legend(present, *args, **kwargs):
        explained.extend(present)
        return overlay.legend(present, *args, **kwargs)

    monkeypatch.setattr(grid, 'legend', legend)
    rows = [a_row(40, 60, [0, 255], [0, 3]), a_row(70, 30, [0], [0])]
    picture = grid.picture_grid(rows, CLASSES, PALETTE)
    assert explained == [0, 3, 255]
    assert picture.mode == 'RGB'


def test_grid_shows_the_paint_of_ground_truth_and_prediction():
    picture = grid.picture_grid([a_row(40, 60, [1], [2])], CLASSES, PALETTE)
    thirds = np.split(np.asarray(picture)[60:180, :picture.width // 3 * 3].astype(int), 3, axis=1)
    greener = [third[..., 1].mean() - third[..., 2].mean() for third in thirds]
    assert abs(greener[0]) < 5 and greener[1] > 30 and greener[2] < -30


@pytest.mark.parametrize('rows', [[], [(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), int),
                                        np.zeros((4, 5), int))]])
def test_grid_refuses_what_it_cannot_draw(rows):
    with pytest.raises(ValueError):
        grid.picture_grid(rows, CLASSES, PALETTE)


def test_saved_grid_is_the_picture_in_a_new_folder(tmp_path):
    picture = grid.picture_grid([a_row(140, 200, [0, 1, 2], [1, 2, 3])], CLASSES, PALETTE)
    path = tmp_path / 'new' / 'grid.png'
    grid.save_png(picture, str(path))
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(picture))
    assert [p.name for p in path.parent.iterdir()] == ['grid.png']


def test_rows_are_spread_and_always_the_same(dataset):
    assert choose_rows(dataset, 3) == [0, 1, 2]
    assert choose_rows(dataset, 2) == choose_rows(dataset, 2)
    assert len(choose_rows(dataset, 9)) == 3
    with pytest.raises(InputError, match='--rows 0'):
        choose_rows(dataset, 0)


def test_rows_that_show_new_classes_come_first(dataset, monkeypatch):
    labels = [[1, 2, 3, 4], [1], [1, 2, 3, 255], [5, 6], [1, 2, 5], [0]]
    monkeypatch.setattr(type(dataset), '__len__', lambda self: len(labels))
    monkeypatch.setattr(dataset, 'get_gt_seg_map_by_idx', lambda i: np.array(labels[i]))
    assert choose_rows(dataset, 2) == [0, 3]


def test_row_is_image_ground_truth_and_prediction(dataset, predictions):
    image, ground_truth, prediction = read_row(dataset, 1, str(predictions))
    assert image.shape == (*ground_truth.shape, 3) and prediction.shape == ground_truth.shape
    labelled = ground_truth != 255
    np.testing.assert_array_equal(prediction[labelled], ground_truth[labelled])
    assert set(prediction[~labelled].tolist()) == {1}
    assert image[..., 0][ground_truth == 0].mean() > 150  # class 0 is red: the order is RGB


@pytest.mark.parametrize('spoil, message', [
    (lambda path: path.unlink(), 'does not exist: .*--format-only'),
    (lambda path: path.write_bytes(b'no png'), 'cannot be decoded'),
    (lambda path: Image.new('L', (60, 60), 151).save(path), 'holds 151..151'),
    (lambda path: Image.new('L', (60, 60), 0).save(path), 'holds 0..0'),
    (lambda path: Image.new('L', (9, 9), 1).save(path), 'different data'),
])
def test_bad_predictions_are_named(dataset, predictions, spoil, message):
    spoil(predictions / 'ADE_val_00000002.png')
    with pytest.raises(InputError, match=f'ADE_val_00000002.*{message}'):
        read_row(dataset, 1, str(predictions))


def test_tool_writes_the_picture_and_prints_its_path(own_data, predictions, tmp_path, run_tool):
    config, out = write_config(tmp_path / 'config.py', own_data), tmp_path / 'grid.png'
    assert run_tool('demo_grid.py', config, predictions, out, '--rows', 2)[:2] == (0, f'{out}\n')
    assert Image.open(out).format == 'PNG'


def test_tool_leaves_out_what_cannot_be_read(own_data, predictions, tmp_path, run_tool):
    config, out = write_config(tmp_path / 'config.py', own_data), tmp_path / 'grid.png'
    (own_data / 'annotations/validation/ADE_val_00000001.png').write_bytes(b'no label')
    (predictions / 'ADE_val_00000002.png').unlink()
    code, _, error = run_tool('demo_grid.py', config, predictions, out, '--rows', 3)
    assert code == 1 and out.exists() and error.count('failed: ') == 2
    assert error.splitlines()[-1].startswith('error: 2 of 3 images failed, the others are done')


def test_rows_of_several_data_sets(own_data, predictions, tmp_path, run_tool):
    for number in '01':
        shutil.copytree(predictions, tmp_path / 'both' / number)
    config, out = write_config(tmp_path / 'config.py', own_data, extra="""
data['val'].update(img_dir=['images/validation'] * 2, ann_dir=['annotations/validation'] * 2)
"""), tmp_path / 'grid.png'
    code, _, error = run_tool('demo_grid.py', config, tmp_path / 'both', out, '--rows', 6)
    assert code == 0 and out.exists(), error
