"""Few-shot lists: the published ones, the rule behind them, and what a data set does with both."""
import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.data import write_config
from helpers.logs import logged
from mmseg.datasets import build_dataset
from PIL import Image

from mmseg_custom.datasets import few_shot
from mmseg_custom.datasets.few_shot import FRACTIONS, SEEDS, choose, lists, published
from mmseg_custom.datasets.few_shot.coverage import report, table
from mmseg_custom.engine.identity import FEW_SHOT, identity, refuse_another
from mmseg_custom.errors import InputError

LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]
ALL = [f'ADE_train_{i:08d}' for i in range(1, 20211)]


def training(root, **options):
    return dict(type='ADE20KDataset', data_root=str(root), pipeline=LOAD,
                img_dir='images/training', ann_dir='annotations/training', **options)


@pytest.mark.parametrize('seed', SEEDS)
def test_lists_are_what_was_published_and_nested(seed):
    names = published(seed)
    assert len(set(names)) == 10105 and set(names) < set(ALL)
    for fraction, count in FRACTIONS.items():
        head = ''.join(f'{name}\n' for name in names[:count])
        assert lists.hashes()[str(seed)][fraction] == hashlib.sha256(head.encode()).hexdigest()
    assert list(FRACTIONS.values()) == [1263, 2526, 5052, 10105]


def test_seeds_give_lists_that_have_little_in_common():
    heads = [set(published(seed)[:1263]) for seed in SEEDS]
    common = [len(a & b) for i, a in enumerate(heads) for b in heads[:i]]
    assert max(common) < 150  # 79 are expected of two random sixteenths


# SHA-256 of the files that earlier versions of the package held, half of ADE20K each.
FILES = ['b33dcd54c2947855c18bcaab124d5f4bb40269d8b07b1a0349c8daf660c95c78',
         '974f836131989d0a66dfaea4007b6f80429b052ff7f569b2a878adf8c77a31f2',
         '1429d54a93e6769c7f0c87660244686a29a0fd516c8e510e46e92ca82baa5060',
         'a0f9aa1d8e0740fac02de296e25d3ba34bf15c5c2f22e8defa6afab6117fb813',
         '3beca0cb070cb3bcdc39fd2fd4927c8422cc9f8d1355721df389795498484f53']


def test_hashes_that_must_never_change(tmp_path):
    """The lists of every published few-shot run; whoever changes them changes their meaning."""
    lists.write(tmp_path)
    written = [tmp_path / f'ade20k_seed{seed}.txt' for seed in SEEDS]
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in written] == FILES
    assert (tmp_path / 'hashes.json').read_bytes() == lists.HASHES.read_bytes()
    assert choose(ALL, 20210 // 16).sha256 == (
        '40032ad4a8755988512f7ef3d0593272a053c8230b4b5684fd5dd357c502edbb')


def test_choosing_takes_the_published_list_then_follows_its_rule():
    chosen = choose(reversed(ALL), 15000, seed=2)
    assert chosen.names[:10105] == published(2) and chosen.fraction is None
    assert choose(ALL, 2526, seed=2).names == published(2)[:2526]
    assert choose(ALL, 2526, seed=2).fraction == '1/8'
    assert sorted(ALL, key=lambda name: lists.rank(name, 2))[:15000] == list(chosen.names)


@pytest.mark.parametrize('names', [ALL[:160], [f'straße/{i}' for i in range(90)],
                                   ALL[:40] + [f'own_{i}' for i in range(40)]])
@pytest.mark.parametrize('seed', [0, 4, 77])
def test_any_names_nest_and_do_not_depend_on_the_others(names, seed):
    small, large = choose(names, 10, seed), choose(names[::-1], 25, seed)
    assert large.names[:10] == small.names and len(set(large.names)) == 25
    fewer = [name for name in names if name != small.names[0]]
    assert choose(fewer, 9, seed).names == small.names[1:]
    assert small.names != choose(names, 10, seed + 1).names


@pytest.mark.parametrize('options, count', [
    (dict(max_image_num=3), 3), (dict(max_image_num=99), 6), (dict(few_shot=None), 6),
    (dict(few_shot=dict(fraction='1/2')), 3), (dict(few_shot=dict(fraction='1/4', seed=3)), 1),
    (dict(few_shot=dict(fraction=0.5, seed=1)), 3), (dict(few_shot=dict(fraction=1)), 6)])
def test_data_sets_take_them(shared_data, options, count):
    kept = [[info['filename'] for info in build_dataset(training(shared_data, **options)).img_infos]
            for _ in range(2)]
    assert kept[0] == kept[1] == sorted(kept[0]) and len(kept[0]) == count


def test_both_options_take_the_same_images(shared_data):
    by_count = build_dataset(training(shared_data, max_image_num=3))
    by_part = build_dataset(training(shared_data, few_shot=dict(fraction='1/2', seed=0)))
    assert by_count.img_infos == by_part.img_infos
    assert by_count.few_shot == by_part.few_shot


@pytest.mark.parametrize('options, message', [
    (dict(max_image_num=0), 'max_image_num=0: expected a number of images, 1 or more'),
    (dict(max_image_num=True), 'max_image_num=True: expected a number'),
    (dict(max_image_num=2, few_shot=dict(fraction='1/2')), 'both say which images to take'),
    (dict(few_shot=dict(fraction='1/0')), "few_shot.fraction='1/0': expected a part"),
    (dict(few_shot=dict(fraction='3/2')), 'more than 0 and at most 1'),
    (dict(few_shot=dict(fraction='a sixteenth')), "fraction='a sixteenth': expected a part"),
    (dict(few_shot=dict(fraction='1/16')), "fraction='1/16' of 6 images is none"),
    (dict(few_shot=dict(fraction='1/2', seed=-1)), 'few_shot.seed=-1: expected 0 or more'),
    (dict(few_shot=dict(part='1/2')), r"expected few_shot=dict\(fraction='1/16', seed=0\)"),
    (dict(few_shot='1/16'), 'expected few_shot=dict')])
def test_options_that_mean_nothing(shared_data, options, message):
    with pytest.raises(InputError, match=message):
        build_dataset(training(shared_data, **options))


def test_log_and_checkpoint_carry_the_hash(shared_data):
    with logged() as lines:
        dataset = build_dataset(training(shared_data, few_shot=dict(fraction='1/2', seed=1)))
    digest = dataset.few_shot.sha256
    assert any(digest in line and '3 of 6 images, seed 1' in line for line in lines)
    cfg = SimpleNamespace(get=lambda key: None, data=SimpleNamespace(train={}))
    repeated = SimpleNamespace(dataset=dataset)
    now = identity(cfg, repeated, 4, seed=0)
    assert digest in now[FEW_SHOT]
    older = {key: value for key, value in now.items() if key != FEW_SHOT}
    refuse_another(older, now, 'written_before_lists_had_hashes.pth')
    other = build_dataset(training(shared_data, few_shot=dict(fraction='1/2', seed=3)))
    with pytest.raises(InputError, match='list of images was 3 images'):
        refuse_another(now, identity(cfg, other, 4, seed=0), 'a.pth')


def test_coverage_counts_what_the_labels_show(own_data):
    labels = np.zeros((70, 80), np.uint8)
    labels[:5] = 150
    for path in sorted((own_data / 'annotations/training').iterdir()):
        image = own_data / 'images/training' / f'{path.stem}.jpg'
        Image.fromarray(np.zeros((70, 80, 3), np.uint8)).save(image)
        Image.fromarray(labels).save(path)
    labels[50:] = 7
    first = few_shot.choose([f'ADE_train_{i:08d}' for i in range(1, 7)], 1).names[0]
    Image.fromarray(labels).save(own_data / f'annotations/training/{first}.png')
    found = report(training(own_data, max_image_num=2), ['1/2', '1'], [0], workers=2)
    assert [int(one.images[149]) for one in found] == [3, 6]
    assert [int(one.pixels[149]) for one in found] == [3 * 400, 6 * 400]
    assert [int(one.images[6]) for one in found] == [1, 1]
    assert found[0].rarest() == 'road (1)' and len(found[0].missing()) == 148
    text = table(found, each_class=True)
    assert '2 of 150' in text and 'wall, building, sky and 145 more' in text
    assert len(text.splitlines()) > 150


def test_coverage_without_a_label_that_cannot_be_read(own_data, run_tool, tmp_path):
    config = write_config(tmp_path / 'config.py', own_data)
    whole, = report(training(own_data), ['1'], [0])
    (own_data / 'annotations/training/ADE_train_00000003.png').write_bytes(b'no image')
    found, = report(training(own_data), ['1'], [0])
    assert list(found.unread) == ['ADE_train_00000003'] and found.images.sum() < whole.images.sum()
    code, out, error = run_tool('few_shot.py', 'report', config, '--fraction', '1', '--seed', 0, 1)
    assert code == 1 and '| 1    | 1' in out and 'Traceback' not in error
    assert error.splitlines()[-1].startswith('error: 1 of 6 labels failed, the others are done')
