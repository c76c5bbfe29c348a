"""Which files of a folder are read, and what lists of names may hold."""
import logging

import numpy as np
import pytest
from helpers.data import write_config
from helpers.logs import logged
from mmseg.datasets import build_dataset
from PIL import Image

from mmseg_custom.datasets.class_names import class_names
from mmseg_custom.datasets.listing import Folder, read_lines
from mmseg_custom.datasets.prepare import PrepareOptions, prepare_own
from mmseg_custom.doctor.data import check_data
from mmseg_custom.engine.config import load_config
from mmseg_custom.errors import InputError

MIXED = ['0.jpg', '1.jpg', '2.jpeg', '3.JPG', '4.png']


@pytest.fixture
def mixed(tmp_path):
    """Five images of mixed suffixes, with labels, among files that are none."""
    for name in ('images/sub', 'labels'):
        (tmp_path / name).mkdir(parents=True)
    for i, name in enumerate(MIXED):
        kind = 'PNG' if name.endswith('png') else 'JPEG'
        Image.new('RGB', (8, 8), (i, 0, 0)).save(tmp_path / 'images' / name, kind)
        Image.fromarray(np.full((8, 8), i % 2, np.uint8)).save(tmp_path / f'labels/{i}.png')
    for name in ('._0.jpg', 'Thumbs.db', 'sub/notes.txt'):
        (tmp_path / 'images' / name).write_bytes(b'')
    return tmp_path


def config(root, **options):
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    return {**dict(type='CustomDataset', data_root=str(root), img_dir='images', ann_dir='labels',
                   classes=['a', 'b'], pipeline=steps), **options}


def names(dataset):
    return [info['filename'] for info in dataset.img_infos]


def test_what_is_not_read_is_said(mixed):
    with logged() as lines:
        dataset = build_dataset(config(mixed))
    assert names(dataset) == ['0.jpg', '1.jpg']
    [line] = [line for line in lines if 'are read' in line]
    assert ('2 images are read, and not 1 in .JPG (3.JPG), 1 in .jpeg (2.jpeg), 1 in .png (4.png): '
            "set img_suffix='any'") in line
    assert '1 hidden (._0.jpg), 2 no image by the suffix (Thumbs.db, sub/notes.txt)' in line


def test_files_that_are_no_images_are_no_warning(shared_data, own_data):
    def build(root):
        with logged() as lines:
            build_dataset(dict(type='ADE20KDataset', data_root=str(root), pipeline=[],
                               img_dir='images/training', ann_dir='annotations/training'))
        return [line for line in lines if 'are read' in line]
    assert not build(shared_data)
    (own_data / 'images/training/Thumbs.db').write_bytes(b'')
    (own_data / 'images/training/more.jpg').mkdir()
    [line] = build(own_data)
    assert '6 images are read, and not 1 no image by the suffix (Thumbs.db)' in line
    assert '1 a folder with the name of an image (more.jpg)' in line


def test_all_usual_suffixes_in_any_case(mixed):
    (mixed / 'images/.hidden').mkdir()
    (mixed / 'images/.hidden/9.jpg').write_bytes(b'')
    with logged(level=logging.WARNING) as lines:
        dataset = build_dataset(config(mixed, img_suffix='any'))
    assert names(dataset) == MIXED and not lines
    for i in range(5):
        assert (dataset[i]['gt_semantic_seg'] == i % 2).all()
        assert abs(int(dataset[i]['img'][0, 0, 2]) - i) < 3  # its own label
    (mixed / 'labels/3.png').rename(mixed / 'labels/3.PNG')
    with pytest.raises(InputError, match="3.JPG has no label.*there is 3.PNG, which .*='any'"):
        build_dataset(config(mixed, img_suffix='any'))
    dataset = build_dataset(config(mixed, img_suffix='any', seg_map_suffix='any'))
    assert (dataset[3]['gt_semantic_seg'] == 1).all()
    (mixed / 'list.txt').write_text('4\n2\n')
    assert names(build_dataset(config(mixed, img_suffix='any', split='list.txt'))) == [
        '4.png', '2.jpeg']


def test_any_suffix_refuses_what_is_not_clear(mixed):
    (mixed / 'images/0.png').write_bytes((mixed / 'images/4.png').read_bytes())
    with pytest.raises(InputError, match='holds both 0.jpg and 0.png'):
        build_dataset(config(mixed, img_suffix='any'))
    with pytest.raises(InputError, match='is the folder of images and of labels'):
        build_dataset(config(mixed, img_suffix='any', ann_dir='images'))


def test_labels_beside_the_images_are_not_spoken_of(tmp_path):
    (tmp_path / 'both').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'both/0.jpg')
    Image.new('L', (8, 8)).save(tmp_path / 'both/0.png')
    with logged(level=logging.WARNING) as lines:
        build_dataset(config(tmp_path, img_dir='both', ann_dir='both'))
    assert not lines


def test_a_folder_of_other_suffixes_alone(mixed):
    with pytest.raises(InputError, match=r'holds no .webp file, but 1 in .JPG \(3.JPG\)'):
        build_dataset(config(mixed, img_suffix='.webp'))


def test_a_description_may_ask_for_any_suffix(mixed):
    (mixed / 'dataset.yaml').write_text(
        'classes: {a: [0, 0, 0], b: [9, 9, 9]}\nimage_suffix: any\n'
        'train: {images: images, labels: labels}\n')
    options = PrepareOptions('', workers=1)
    assert len(prepare_own(str(mixed / 'dataset.yaml'), options).files) == 10
    dataset = build_dataset(dict(type='DescribedDataset', part='train', pipeline=[],
                                 description=str(mixed / 'dataset.yaml')))
    assert names(dataset) == MIXED


def test_the_doctor_knows_any_suffix(tmp_path, own_data):
    path = own_data / 'images/training/ADE_train_00000001.jpg'
    path.rename(path.with_suffix('.JPG'))
    extra = "for part in ('train', 'val', 'test'): data[part]['img_suffix'] = '{}'"
    for suffix, expected in (('any', 0), ('.jpg', 2)):
        config = write_config(tmp_path / 'config.py', own_data, extra=extra.format(suffix))
        assert len(check_data(load_config(str(config)))[0]) == expected


LISTS = {
    'blank lines': b'\n0\n\n  \n1\n\n',
    'byte order mark': b'\xef\xbb\xbf0\n1\n',
    'of Windows': b'0\r\n1\r\n',
    'of old Macs': b'0\r1\r',
    'blanks': b' 0\t\n1  \n',
    'suffixes': b'0.jpg\n1.jpg\n',
    'suffixes of labels': b'0.png\n1.PNG\n',
    'UTF-16': '0\r\n1\r\n'.encode('utf-16'),
    'paths': b'./0\n.\\1.jpg\n',
    'no last end of line': b'0\n1',
}


@pytest.mark.parametrize('case', LISTS)
@pytest.mark.parametrize('suffix', ['.jpg', 'any'])
def test_lists_of_names(mixed, case, suffix):
    (mixed / 'list.txt').write_bytes(LISTS[case])
    dataset = build_dataset(config(mixed, split='list.txt', img_suffix=suffix,
                                   few_shot=dict(fraction='1/1')))
    assert names(dataset) == ['0.jpg', '1.jpg']
    assert len(dataset.few_shot.names) == 2


def test_hidden_folders_hold_no_images(mixed):
    """As those of notebooks, with copies of what was looked at."""
    (mixed / 'images/.ipynb_checkpoints').mkdir()
    (mixed / 'images/.ipynb_checkpoints/0-checkpoint.jpg').write_bytes(b'')
    for suffix in ('.jpg', 'any'):
        assert not [name for name in names(build_dataset(config(mixed, img_suffix=suffix)))
                    if 'checkpoint' in name]


def test_labels_that_are_their_own_images_are_refused(mixed):
    with pytest.raises(InputError, match='each label would be its own image'):
        build_dataset(config(mixed, img_dir='labels', img_suffix='.png'))


def test_a_list_of_absolute_paths(mixed):
    (mixed / 'list.txt').write_text(f'{mixed}/images/0.jpg\n{mixed}/images/1\n')
    assert names(build_dataset(config(mixed, split='list.txt'))) == ['0.jpg', '1.jpg']


@pytest.mark.parametrize('content, message', [
    (b'0\n\nx.jpg\ny\n', r'images/x.jpg does not exist, but .*list.txt lists it in line 3 \(2 of'),
    (b'0 1\n', r'images/0 1.jpg does not exist, but .*list.txt lists it in line 1'),
    (b'images/0.jpg labels/0.png\n', 'lists it in line 1'),
    (b'\n \r\n', 'list.txt holds no .jpg file')])
def test_a_line_without_an_image_is_named(mixed, content, message):
    (mixed / 'list.txt').write_bytes(content)
    with pytest.raises(InputError, match=message):
        build_dataset(config(mixed, split='list.txt'))


def test_names_that_are_not_utf8_are_those_of_files(tmp_path):
    name = b'caf\xe9.jpg'.decode('utf-8', 'surrogateescape')
    (tmp_path / name).write_bytes(b'')
    [(_, line)] = read_lines(b'caf\xe9.jpg\n')
    assert line in Folder.of(str(tmp_path)).files


def test_names_of_classes(tmp_path):
    path = tmp_path / 'classes.txt'
    path.write_bytes(b'\xef\xbb\xbfwall\r\n\r\nbed\r\n')
    assert class_names(str(path)) == ['wall', 'bed']
    assert class_names(str(path), ['bed ', 'sky', 'wall']) == ['wall', 'bed ']
    assert class_names(['bed '], ['bed ']) == ['bed ']
    for wrong, message in ((['wal'], r"'wal', which is no class.*did you mean 'wall'"),
                           (['wall', 'wall '], "'wall' twice"),
                           (str(tmp_path / 'none.txt'), 'expected a list of names, or a file')):
        with pytest.raises(InputError, match=message):
            class_names(wrong, ['wall', 'bed '])


def test_a_file_of_classes_trains_on_what_it_names(mixed):
    (mixed / 'classes.txt').write_bytes(b'a\r\nb\r\n\r\n')
    assert build_dataset(config(mixed, classes=str(mixed / 'classes.txt'))).CLASSES == ['a', 'b']


def test_data_that_is_not_on_a_disk_is_left_to_mmseg(mixed):
    with pytest.raises(Exception) as error:
        build_dataset(config(mixed, img_dir='nowhere', file_client_args=dict(backend='petrel')))
    assert not isinstance(error.value, InputError)
