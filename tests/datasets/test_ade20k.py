import numpy as np
import pytest
from helpers.logs import logged
from mmseg.datasets import build_dataset
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import LoadAnnotations
from PIL import Image

from mmseg_custom.errors import InputError

LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]


def build(root, split='training', **options):
    return build_dataset({**dict(
        type='ADE20KDataset', data_root=str(root), pipeline=LOAD, img_dir=f'images/{split}',
        ann_dir=f'annotations/{split}'), **options})


def test_labels_are_reduced_and_classes_are_150(shared_data):
    dataset = build(shared_data)
    assert len(dataset.CLASSES) == 150 and len(dataset) == 6
    labels = dataset[0]['gt_semantic_seg']
    assert (labels[:2] == 255).all() and set(np.unique(labels[2:])) <= {0, 1, 2}


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


@pytest.mark.parametrize('what, name', [('image', 'images/training/ADE_train_00000001.jpg'),
                                        ('label', 'annotations/training/ADE_train_00000001.png')])
def test_file_that_vanished_after_it_was_listed(own_data, what, name):
    dataset = build(own_data)
    (own_data / name).unlink()
    with pytest.raises(InputError, match=rf'{what} .*{name} cannot be decoded \(No such file'):
        dataset[0]
    dataset.pipeline.transforms[0].file_client_args = dict(backend='petrel')
    with pytest.raises(Exception) as error:  # a file elsewhere has not vanished from the disk
        dataset[0]
    assert not isinstance(error.value, InputError)


def test_a_test_without_labels_fails_with_its_own_error(own_data):
    dataset = build(own_data, 'validation', test_mode=True)
    (own_data / 'annotations/validation/ADE_val_00000001.png').unlink()
    dataset.pipeline.transforms[:] = [lambda results: 1 // 0]
    with pytest.raises(ZeroDivisionError):
        dataset[0]


@pytest.mark.parametrize('split, read', [
    ('training', lambda dataset: dataset[0]),
    ('validation', lambda dataset: dataset.get_gt_seg_map_by_idx(0))])
def test_label_out_of_range(own_data, split, read):
    path = sorted((own_data / f'annotations/{split}').iterdir())[0]
    labels = np.array(Image.open(path))
    labels[5, 5:8] = 203
    Image.fromarray(labels).save(path)
    with pytest.raises(InputError, match=rf'{path.name} holds 203 \(3 pixels\): expected 0..150'):
        read(build(own_data, split))


def test_coloured_label(own_data):
    path = own_data / 'annotations/training/ADE_train_00000001.png'
    Image.open(path).convert('RGB').save(path)
    with pytest.raises(InputError, match='is RGB, a picture in colours: expected one channel'):
        build(own_data)[0]


@PIPELINES.register_module()
class LoadRedAsClass(LoadAnnotations):
    def __call__(self, results):
        labels = super().__call__(results)['gt_semantic_seg']
        results['gt_semantic_seg'] = labels[..., 0] if labels.ndim == 3 else labels
        return results


def test_coloured_label_that_a_step_of_ones_own_understands(own_data):
    path = own_data / 'annotations/training/ADE_train_00000001.png'
    labels = np.array(Image.open(path))
    steps = [LOAD[0], dict(type='LoadRedAsClass')]
    dataset = build_dataset(dict(type='ADE20KDataset', data_root=str(own_data), pipeline=steps,
                                 img_dir='images/training', ann_dir='annotations/training'))
    Image.fromarray(np.stack([labels] * 3, -1)).save(path)
    assert np.array_equal(dataset[0]['gt_semantic_seg'], labels)
    Image.fromarray(np.stack([labels + 200] * 3, -1)).save(path)
    with pytest.raises(InputError, match='expected 0..150'):  # its numbers are checked
        dataset[0]


@pytest.mark.parametrize('split, read', [
    ('training', lambda dataset: dataset[0]),
    ('validation', lambda dataset: dataset.get_gt_seg_map_by_idx(0))])
def test_label_of_16_bits(own_data, split, read):
    """Loading cuts it to 8 bits: 256 would be 0."""
    path = sorted((own_data / f'annotations/{split}').iterdir())[0]
    Image.fromarray(np.array(Image.open(path)).astype(np.uint16) + 256).save(path)
    with pytest.raises(InputError, match=rf'{path.name} has 16 bits a pixel: expected 8'):
        read(build(own_data, split))


def test_label_of_another_size(own_data):
    path = own_data / 'annotations/training/ADE_train_00000001.png'
    Image.fromarray(np.ones((20, 30), np.uint8)).save(path)
    with pytest.raises(InputError, match=r'01.jpg has \d+ x \d+ pixels .* 20 x 30; .*01.png'):
        build(own_data)[0]


def test_image_that_its_exif_tag_turns_away_from_its_label(own_data):
    image, label = Image.new('RGB', (40, 30)), Image.new('L', (40, 30), 1)
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    path = own_data / 'images/training/ADE_train_00000001.jpg'
    image.save(path, exif=exif)
    label.save(own_data / 'annotations/training/ADE_train_00000001.png')
    with pytest.raises(InputError, match='has 40 x 30 pixels .* turn .* EXIF orientation 6'):
        build(own_data)[0]
    label.transpose(Image.Transpose.ROTATE_270).save(
        own_data / 'annotations/training/ADE_train_00000001.png')
    assert build(own_data)[0]['img'].shape == (40, 30, 3)


def test_server_format_counts_from_one(own_data, tmp_path):
    dataset = build(own_data, 'validation', test_mode=True)
    prediction = np.full((4, 5), 149)
    files = dataset.format_results([prediction], str(tmp_path / 'out'), indices=[0])
    assert np.array(Image.open(files[0])).tolist() == (prediction + 1).tolist()


def test_a_palette_without_effect_or_of_another_length_is_a_warning(shared_data):
    own = dict(type='CustomDataset', img_suffix='.jpg', classes=['a', 'b', 'c', 'd'])
    with logged() as lines:
        build(shared_data, palette=[[1, 2, 3]])
        build(shared_data, **own, palette=[[1, 2, 3]] * 4)
        build(shared_data, **own, palette=[[1, 2, 3]])
    assert [line for line in lines if 'palette' in line] == [
        'ADE20KDataset: palette has no effect, its classes have colours of their own',
        'palette of CustomDataset has 1 colours for 4 classes: pictures need one of each']
