import numpy as np
import pytest
from mmseg.datasets import build_dataset
from PIL import Image

from mmseg_custom.datasets.few_shot_subset import few_shot_subset
from mmseg_custom.errors import InputError

LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]


def build(root, split='training', **options):
    return build_dataset(dict(type='ADE20KDataset', data_root=str(root), pipeline=LOAD,
                              img_dir=f'images/{split}', ann_dir=f'annotations/{split}', **options))


def test_labels_are_reduced_and_classes_are_150(shared_data):
    dataset = build(shared_data)
    assert len(dataset.CLASSES) == 150 and len(dataset) == 6
    labels = dataset[0]['gt_semantic_seg']
    assert (labels[:2] == 255).all() and set(np.unique(labels[2:])) <= {0, 1, 2}


def test_few_shot_subset_is_fixed_and_nested(shared_data):
    names = [f'ADE_train_{i:08d}' for i in range(1, 101)]
    four, eight = few_shot_subset(names, 4), few_shot_subset(names[::-1], 8)
    assert len(four) == 4 and four < eight
    assert four != few_shot_subset(names, 4, seed=1)
    kept = [[i['filename'] for i in build(shared_data, max_image_num=3).img_infos]
            for _ in range(2)]
    assert kept[0] == kept[1] and len(kept[0]) == 3


def test_missing_and_empty_folders(own_data):
    with pytest.raises(InputError, match='nowhere.* does not exist'):
        build(own_data, 'nowhere')
    (own_data / 'images/empty').mkdir()
    with pytest.raises(InputError, match='holds no .jpg'):
        build(own_data, 'empty')


def test_image_without_label(own_data):
    (own_data / 'annotations/training/ADE_train_00000002.png').unlink()
    with pytest.raises(InputError, match=r'ADE_train_00000002.jpg has no label.*1 of 6'):
        build(own_data)


def test_images_without_any_labels_can_be_tested(own_data):
    (own_data / 'annotations/validation').rename(own_data / 'elsewhere')
    dataset = build(own_data, 'validation', test_mode=True)
    assert len(dataset) == 3
    with pytest.raises(InputError, match='--format-only'):
        dataset.get_gt_seg_map_by_idx(0)


def test_file_that_cannot_be_decoded(own_data):
    image = own_data / 'images/training/ADE_train_00000001.jpg'
    image.write_bytes(b'no image')
    with pytest.raises(InputError, match='image .*ADE_train_00000001.jpg cannot be decoded'):
        build(own_data)[0]
    label = own_data / 'annotations/training/ADE_train_00000002.png'
    label.write_bytes(label.read_bytes()[:60])
    with pytest.raises(InputError, match='label .*ADE_train_00000002.png cannot be decoded'):
        build(own_data)[1]


@pytest.mark.parametrize('split, read', [
    ('training', lambda dataset: dataset[0]),
    ('validation', lambda dataset: dataset.get_gt_seg_map_by_idx(0))])
def test_label_out_of_range(own_data, split, read):
    path = sorted((own_data / f'annotations/{split}').iterdir())[0]
    labels = np.array(Image.open(path))
    labels[5, 5:8] = 203
    Image.fromarray(labels).save(path)
    with pytest.raises(InputError, match=rf'label 203 in .*{path.name}: expected 0..150 \(3 pix'):
        read(build(own_data, split))


def test_coloured_label(own_data):
    path = own_data / 'annotations/training/ADE_train_00000001.png'
    Image.open(path).convert('RGB').save(path)
    with pytest.raises(InputError, match=r'shape \(\d+, \d+, 3\): expected one channel'):
        build(own_data)[0]


def test_server_format_counts_from_one(own_data, tmp_path):
    dataset = build(own_data, 'validation', test_mode=True)
    prediction = np.full((4, 5), 149)
    files = dataset.format_results([prediction], str(tmp_path / 'out'), indices=[0])
    assert np.array(Image.open(files[0])).tolist() == (prediction + 1).tolist()
