"""The numbers of labels, against an oracle that knows names alone."""
import numpy as np
import pytest
from helpers.data import prepare, write_config
from helpers.label_oracle import meaning, scores
from mmseg.core import eval_metrics
from mmseg.datasets import CustomDataset, build_dataset
from mmseg.datasets.builder import DATASETS
from PIL import Image

from mmseg_custom.datasets.few_shot import coverage
from mmseg_custom.datasets.ground_truth import read_ground_truth
from mmseg_custom.doctor.data import check_data
from mmseg_custom.engine.cached.key import describe
from mmseg_custom.engine.classes import check_label_numbers
from mmseg_custom.engine.config import load_config
from mmseg_custom.errors import InputError
from mmseg_custom.evaluation import evaluate, pre_eval

ROW = [1, 2, 3, 0, 255, 150, 149]


@DATASETS.register_module()
class PluginDataset(CustomDataset):
    """A data set of somebody else, on mmseg's base."""
    CLASSES = ('sea', 'land', 'ice')
    PALETTE = [[0, 0, 9], [0, 9, 0], [9, 9, 9]]


def draw(root, rows, suffix='.jpg', side=6):
    """Draws an image and a label for each row of numbers, and a list of their names."""
    for name in ('images', 'labels'):
        (root / name).mkdir(parents=True)
    (root / 'list.txt').write_text(''.join(f'{i}\n' for i in range(len(rows))))
    for i, row in enumerate(rows):
        stored = np.tile(np.array(row, np.uint8), (side, 1))
        Image.fromarray(stored).save(root / f'labels/{i}.png')
        Image.new('RGB', stored.shape[::-1]).save(root / f'images/{i}{suffix}')
    return root


def build(root, kind, reduced, **options):
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations',
                                                  reduce_zero_label=reduced)]
    return build_dataset(dict(type=kind, data_root=str(root), img_dir='images', ann_dir='labels',
                              pipeline=steps, **options))


CASES = [
    ('ADE20KDataset', True, {}, ['wall', 'sky'], ROW),
    ('ADE20KDataset', True, {}, ['sky', 'flag', 'wall'], ROW),
    ('ADE20KDataset', True, {}, None, ROW),
    ('LoveDADataset', True, {}, ['road', 'building'], [0, 1, 2, 3, 7, 255]),
    ('PascalContextDataset59', True, dict(split='list.txt'), ['bed', 'aeroplane'],
     [0, 1, 2, 3, 59, 255]),
    ('CityscapesDataset', False, dict(img_suffix='.jpg', seg_map_suffix='.png'), ['sky', 'road'],
     [0, 1, 10, 18, 255]),
    ('PluginDataset', True, dict(reduce_zero_label=True), ['ice', 'sea'], [0, 1, 2, 3, 255]),
    ('PluginDataset', False, {}, ['ice', 'sea'], [0, 1, 2, 255]),
    ('CustomDataset', True, dict(reduce_zero_label=True, classes=['a', 'b']), None, [0, 1, 2, 255]),
]


@pytest.mark.parametrize('kind, reduced, options, selected, row', CASES)
def test_training_and_evaluation_read_what_the_oracle_says(tmp_path, kind, reduced, options,
                                                           selected, row):
    options = {**options, **({} if selected is None else dict(classes=selected))}
    draw(tmp_path, [row, row[::-1]], '.png' if kind == 'LoveDADataset' else '.jpg')
    dataset = build(tmp_path, kind, reduced, **options)
    names = type(dataset).CLASSES or options['classes']
    truths = [meaning(np.tile(np.array(part, np.uint8), (6, 1)), names, reduced, selected)
              for part in (row, row[::-1])]
    for i, truth in enumerate(truths):
        np.testing.assert_array_equal(dataset[i]['gt_semantic_seg'], truth)
        np.testing.assert_array_equal(read_ground_truth(dataset, i), truth)

    rng, classes = np.random.default_rng(0), len(dataset.CLASSES)
    predictions = [rng.integers(0, classes, truth.shape) for truth in truths]
    expected = scores(predictions, truths, classes)
    of_hook = dataset.evaluate(dataset.pre_eval(predictions, [0, 1]), logger='silent')
    of_maps = dataset.evaluate(predictions, logger='silent')
    of_test = evaluate(dataset, pre_eval(dataset, predictions, [0, 1]), ['mIoU'],
                       logger='silent')['metric']
    for found in (of_hook, of_maps, of_test):
        assert found['aAcc'] == pytest.approx(expected['aAcc'], abs=1e-4)
        for k, name in enumerate(dataset.CLASSES):
            np.testing.assert_allclose(found[f'IoU.{name}'], expected['iou'][k], atol=1e-4)
            np.testing.assert_allclose(found[f'Acc.{name}'], expected['acc'][k], atol=1e-4)


def test_metrics_of_files_agree_with_the_map_of_the_data_set(tmp_path):
    """In mmseg they apply the label map and then reduce, which the map fits."""
    dataset = build(draw(tmp_path, [ROW]), 'ADE20KDataset', True, classes=['wall', 'sky'])
    truth = meaning(np.tile(np.array(ROW, np.uint8), (6, 1)),
                    type(dataset).CLASSES, True, ['wall', 'sky'])
    found = eval_metrics([np.zeros(truth.shape, int)], [str(tmp_path / 'labels/0.png')], 2, 255,
                         label_map=dataset.label_map, reduce_zero_label=True)
    expected = scores([np.zeros(truth.shape, int)], [truth], 2)
    np.testing.assert_allclose(found['IoU'], expected['iou'])


def test_few_shot_lists_count_the_selected_classes(tmp_path):
    draw(tmp_path, [[1, 1], [2, 2], [3, 0], [2, 0]])
    train = dict(type='ADE20KDataset', data_root=str(tmp_path), img_dir='images', ann_dir='labels',
                 pipeline=[], classes=['wall', 'sky'])
    [found] = coverage.report(train, ['1'], [0])
    assert found.images.tolist() == [1, 1] and found.pixels.tolist() == [12, 6]


def test_server_gets_the_numbers_of_all_classes(tmp_path):
    dataset = build(draw(tmp_path, [ROW]), 'ADE20KDataset', True, classes=['wall', 'sky'])
    [path] = dataset.format_results([np.array([[0, 1]])], str(tmp_path / 'out'), indices=[0])
    assert np.array(Image.open(path)).tolist() == [[1, 3]]


def test_a_number_beyond_all_classes_is_named(tmp_path):
    dataset = build(draw(tmp_path, [[1, 3, 151]]), 'ADE20KDataset', True, classes=['wall', 'sky'])
    for read in (lambda: dataset[0], lambda: read_ground_truth(dataset, 0),
                 lambda: list(dataset.get_gt_seg_maps())):
        with pytest.raises(InputError, match=r'0.png holds 151 \(6 pixels\): expected 0..150'):
            read()


def test_the_doctor_reads_labels_of_selected_classes(tmp_path, own_data):
    changes = "for part in ('train', 'val', 'test'): data[part]['classes'] = ['wall', 'sky']"
    cfg = load_config(str(write_config(tmp_path / 'config.py', own_data, extra=changes)))
    assert not check_data(cfg)[0]
    (own_data / 'annotations/training/ADE_train_00000001.png').unlink()
    size = Image.open(own_data / 'images/training/ADE_train_00000001.jpg').size
    Image.new('L', size, 203).save(own_data / 'annotations/training/ADE_train_00000001.png')
    assert 'holds 203' in check_data(cfg)[0][0].message
    for path in (own_data / 'annotations/training').iterdir():
        Image.new('L', Image.open(path).size, 2).save(path)  # a class that is not selected
    assert any('no label that was read' in found.message for found in check_data(cfg)[0])


def test_a_cache_and_a_run_of_wrong_labels_are_not_taken_up(tmp_path, shared_data):
    plain = prepare(write_config(tmp_path / 'config.py', shared_data), splits=['train'])
    assert 'selected classes' not in plain.identity
    few = prepare(write_config(tmp_path / 'few.py', shared_data, extra=(
        "data['train']['classes'] = ['wall', 'floor']\n"
        'model = dict(decode_head=dict(num_classes=2))')), splits=['train'])
    assert 'reduce_zero_label' in few.identity['selected classes']
    from mmseg_custom.engine.build import build_network
    model = build_network(few.cfg)
    assert describe(few, model, 0)['labels'] == few.identity['selected classes']
    assert 'labels' not in describe(plain, model, 0)


def test_classes_cannot_be_selected_where_loading_and_data_set_differ(tmp_path):
    draw(tmp_path, [ROW])
    with pytest.raises(InputError, match='selects classes, and its reduce_zero_label=True differs'):
        build(tmp_path, 'ADE20KDataset', False, classes=['wall', 'sky'])
    with pytest.raises(InputError, match='would subtract 1 twice'):
        build(tmp_path, 'ADE20KDataset', True, gt_seg_map_loader_cfg=dict(reduce_zero_label=True))


def test_training_and_validation_that_number_differently_are_noted(tmp_path, shared_data, caplog):
    run = prepare(write_config(tmp_path / 'config.py', shared_data))
    train, val = run.data['train'], run.data['val']
    assert check_label_numbers(train, val) is None
    plain = build(draw(tmp_path, [[1, 2]]), 'CustomDataset', False, classes=['a', 'b'])
    assert 'reduce_zero_label' in check_label_numbers(plain, val)


@pytest.mark.parametrize('shape', [(1, 1), (1, 5), (5, 1)])
def test_labels_of_one_row_or_column(tmp_path, shape):
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
    Image.fromarray(np.ones(shape, np.uint8)).save(tmp_path / 'labels/0.png')
    Image.new('RGB', shape[::-1]).save(tmp_path / 'images/0.jpg')
    for kind in ('ADE20KDataset', 'PluginDataset'):
        dataset = build(tmp_path, kind, True)
        assert dataset[0]['gt_semantic_seg'].tolist() == np.zeros(shape).tolist()
        assert dataset.get_gt_seg_map_by_idx(0).shape == shape


@pytest.mark.parametrize('seed', range(12))
def test_any_selection_of_any_labels(tmp_path, seed):
    """Random numbers in the files, random classes in random order, of data sets of both kinds."""
    rng = np.random.default_rng(seed)
    kind, reduced, options = [('ADE20KDataset', True, {}), ('CityscapesDataset', False, dict(
        img_suffix='.jpg', seg_map_suffix='.png')), ('PluginDataset', bool(seed % 2), dict(
            reduce_zero_label=bool(seed % 2)))][seed % 3]
    names = DATASETS.get(kind).CLASSES
    selected = list(rng.permutation(names)[:rng.integers(1, len(names) + 1)])
    numbers = [*range(len(names) + reduced), 255]
    rows = rng.choice(numbers, (3, 40)).astype(np.uint8)
    dataset = build(draw(tmp_path, rows), kind, reduced, classes=[str(c) for c in selected],
                    **options)
    for i, row in enumerate(rows):
        truth = meaning(np.tile(row, (6, 1)), names, reduced, selected)
        np.testing.assert_array_equal(dataset[i]['gt_semantic_seg'], truth)
        np.testing.assert_array_equal(read_ground_truth(dataset, i), truth)
        [areas] = dataset.pre_eval([np.zeros(truth.shape, int)], [i])
        assert areas[3].tolist() == [(truth == k).sum() for k in range(len(selected))]
    dataset.evaluate(dataset.pre_eval([np.zeros((6, 40), int)] * 3, [0, 1, 2]), logger='silent')
