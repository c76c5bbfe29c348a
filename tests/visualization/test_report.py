"""The page on test results: what it says, and that a real browser shows, sorts and filters it."""
import json
import re
import shutil

import numpy as np
import pytest
from helpers.browser import Browser, needs_browser
from helpers.data import write_config
from helpers.report_page import Page, row_of
from helpers.results import write_drawn, write_some
from PIL import Image

from mmseg_custom.errors import InputError
from mmseg_custom.evaluation import read_results
from mmseg_custom.visualization.report import write_leaderboard, write_report
from mmseg_custom.visualization.report.matrix import confusion_matrix


@pytest.fixture(scope='module')
def folder(shared_data, tmp_path_factory):
    """A folder with results a.json and b.json of one data set, b better, and pages on them."""
    folder = tmp_path_factory.mktemp('report')
    config = write_config(folder / 'config.py', shared_data)
    a, b = (read_results(str(write_some(config, folder / f'{name}.json', wrong, seed)))
            for name, wrong, seed in (('a', .5, 1), ('b', .1, 2)))
    write_report(str(folder / 'one.html'), a, images=2)
    write_report(str(folder / 'two.html'), a, b, images=2)
    return folder


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    """Results of 30 images and 9 of 40 classes; b.json is better, but predicts others, too."""
    folder = tmp_path_factory.mktemp('drawn')
    write_drawn(folder / 'a.json', wrong=.4, others=0)
    write_drawn(folder / 'b.json', wrong=.2, others=20)
    return folder


@pytest.mark.parametrize('name, pictures', [('one', 3 * 4), ('two', 3 * 5)])
def test_page_is_whole_and_refers_to_nothing_else(folder, name, pictures):
    text = (folder / f'{name}.html').read_text()
    page = Page(text)
    assert len(page.pictures) == len(set(page.pictures)) == pictures
    assert all(address.startswith(('data:image/', '#')) for address in page.addresses)
    assert '@import' not in text and '://' not in text
    assert not list(folder.glob('*.part')) and not list(folder.glob('*_images'))


def test_page_shows_the_metrics(folder):
    text, results = (folder / 'one.html').read_text(), read_results(str(folder / 'a.json'))
    assert f'<dd>{100 * results.run["metric"]["mIoU"]:.2f}</dd>' in text
    assert '95 % interval' in text and 'mBIoU' in text and 'skipped' in text
    row = row_of(text, 'wall')
    assert row['IoU'] == f'{100 * results.run["metric"]["IoU.wall"]:.1f}'
    pixels = int(results.images.ground_truth_areas(150)[:, 0].sum())
    assert row['Pixels'] == f'{pixels:,}'.replace(',', ' ')


def test_means_over_other_classes_are_not_compared(drawn):
    a, b = (read_results(str(drawn / f'{name}.json')) for name in 'ab')
    lines = ' '.join(write_report(str(drawn / 'two.html'), a, b, images=0))
    words = Page((drawn / 'two.html').read_text()).words
    iou = [100 * np.divide(*(area.sum(0)[:9] for area in one.areas)).mean() for one in (a, b)]
    change = f'+{iou[1] - iou[0]:.2f} points of mIoU over the 9 classes that both have'
    assert iou[1] > iou[0] and b.run['metric']['mIoU'] < a.run['metric']['mIoU']
    assert f'B is better: {change}' in words and f'B - A: {change}' in lines
    measured = [f'{100 * one.run["metric"]["mIoU"]:.2f}' for one in (a, b)]
    assert f'{measured[0]} over 9 classes in A, {measured[1]} over 29 classes in B' in words
    assert f'A {measured[0]} over 9 classes, B {measured[1]} over 29: means over diff' in lines
    table = words[words.index('Metrics in percent'):]
    assert f'mIoU over common classes {iou[0]:.2f} 9 {iou[1]:.2f} 9' in table
    assert f'mIoU {measured[0]} 9 {measured[1]} 29 other classes' in table
    assert 'mBIoU over common classes' in table and 'mAcc over common' not in table


def test_mean_over_the_ground_truth_is_beside_that_of_a_single_run(drawn):
    results = read_results(str(drawn / 'b.json'))
    lines = write_report(str(drawn / 'one.html'), results, images=0)
    words = Page((drawn / 'one.html').read_text()).words
    iou = 100 * np.divide(*(area.sum(0)[:9] for area in results.areas)).mean()
    assert f'29 classes of 40; 20 of them are not in the ground truth, only predicted (IoU 0). ' \
        f'Over the 9 in the ground truth: {iou:.2f}' in words
    assert f'over the 9 in the ground truth: {iou:.2f}' in lines[1]


def test_images_of_a_class_are_those_of_the_ground_truth_on_both_pages(drawn):
    a, b = (read_results(str(drawn / f'{name}.json')) for name in 'ab')
    for name, runs in (('one', (b,)), ('two', (a, b))):
        write_report(str(drawn / f'{name}.html'), *runs, images=0)
        text = (drawn / f'{name}.html').read_text()
        for k in (0, 8):
            expected = str((b.ground_truth_areas[:, k] > 0).sum())
            assert row_of(text, f'class {k}')['Images'] == expected
        assert 'Images: number of images whose ground truth shows the class' in text
    union = [(one.areas[1][:, 8] > 0).sum() for one in (a, b)]
    assert min(union) > (b.ground_truth_areas[:, 8] > 0).sum()


def test_classes_without_ground_truth_are_folded(drawn):
    write_report(str(drawn / 'one.html'), read_results(str(drawn / 'b.json')), images=0)
    page = (drawn / 'one.html').read_text()
    before, _, after = page.partition('<details><summary>20 classes predicted, but not in the')
    assert after and 'data-value="class 8"' in before and 'data-value="class 9"' not in before
    assert 'data-value="class 9"' in after
    names = after[after.index('11 classes neither in the ground truth nor predicted: in no mean'):]
    assert 'class 29, class 30' in names


def test_curves_of_the_training_beside_the_results(drawn, tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        for ending in ('json', 'npz'):
            shutil.copy(drawn / f'{name}.{ending}', tmp_path / name)
        lines = [dict(mode='train', epoch=1, iter=i, lr=.1 / i, loss=1 + 8 / i)
                 for i in range(10, 5010, 10)]
        lines.append(dict(mode='val', epoch=1, iter=30, lr=.1, mIoU=.25, aAcc=float('nan')))
        (tmp_path / name / '20260101_000000.log.json').write_text(
            '\n'.join(map(json.dumps, lines)))
    runs = [read_results(str(tmp_path / name / f'{name}.json')) for name in 'ab']
    for results, path in zip(runs, ('/moved/iter_9.pth', str(tmp_path / 'b' / 'iter_9.pth'))):
        results.run['checkpoint'] = dict(path=path)
    page = tmp_path / 'page.html'
    write_report(str(page), runs[0], images=0)
    text = page.read_text()
    assert 'aria-label="Loss over 5\u202f000 iterations: loss from 1.8 to 1, lowest 1, ' in text
    assert 'Metrics of evaluations, percent over 5\u202f000 iterations: mIoU from 25' in text
    lengths = [len(points.split()) for points in re.findall('<g.*?points="(.*?)"', text)]
    assert sorted(lengths) == [1, 300, 300]
    write_report(str(page), *runs, images=0)
    words = Page(page.read_text()).words
    assert all(f'{letter} {name} last' in words for letter in 'AB' for name in ('loss', 'mIoU'))
    runs[1].run['checkpoint'] = dict(path='none')  # The logs beside it are of another run.
    write_report(str(page), runs[1], images=0)
    assert 'Training' not in Page(page.read_text()).words
    log = dict(mode='train', epoch=1, iter=1, lr=0., loss=-1.)
    (tmp_path / 'a' / '20260101_000000.log.json').write_text(json.dumps(log))
    write_report(str(page), runs[0], images=0)
    assert 'loss from -1 to -1' in page.read_text()
    (tmp_path / 'a' / '20260101_000000.log.json').write_text('damaged')
    write_report(str(page), runs[0], images=0)
    assert 'Training' not in Page(page.read_text()).words


def test_names_are_escaped(folder):
    results = read_results(str(folder / 'a.json'))
    results.run['classes'][0] = '<script>alert(1)</script>'
    results.run['config'] = '"><img src=x>.py'
    results.images.names[:] = '<b>.jpg'
    write_report(str(folder / 'escaped.html'), results)
    text = (folder / 'escaped.html').read_text()
    assert '<script>alert' not in text and '<img src=x' not in text and '<b>.jpg' not in text


def test_photos_that_are_gone_are_named(folder):
    results = read_results(str(folder / 'a.json'))
    results.run['image_folder'] = '/gone'
    write_report(str(folder / 'gone.html'), results, images=1)
    page = Page((folder / 'gone.html').read_text())
    assert 'The photos of 2 images cannot be read any more from /gone' in page.words
    assert len(page.pictures) == 2 * 4 and all('png' in address for address in page.addresses
                                               if address.startswith('data:'))


def test_matrix_is_of_the_classes_with_most_wrong_pixels(tmp_path):
    results = read_results(str(write_drawn(tmp_path / 'c.json', labelled=30, images=10)))
    matrix = confusion_matrix(results)
    confusion = results.images.confusion(40)
    wrong = confusion * (1 - np.eye(40))
    chosen = [k for k, _, _ in matrix.rows]
    assert chosen == sorted(np.argsort(-(wrong.sum(0) + wrong.sum(1)))[:20])
    assert matrix.columns == [*(f'class {k}' for k in chosen), 'others']
    k, name, cells = matrix.rows[3]
    shares = [float(cell.text.split(': ')[1].split(' %')[0]) for cell in cells]
    assert sum(shares) == pytest.approx(100, abs=.2)
    assert shares[3] == pytest.approx(100 * confusion[k, k] / confusion[k].sum(), abs=.01)
    assert [cell.kind for cell in cells] == ['', '', '', 'right', *[''] * 16, 'others']


def test_no_images_are_shown_on_request(folder):
    write_report(str(folder / 'none.html'), read_results(str(folder / 'a.json')), images=0)
    assert not Page((folder / 'none.html').read_text()).pictures


def test_pictures_of_many_images_lie_beside_the_page(drawn, tmp_path):
    results, shown = read_results(str(drawn / 'a.json')), []
    path = tmp_path / 'a page (1)%.html'
    write_report(str(path), results, images=None,
                 progress=lambda images, count: shown.append(count) or images)
    page, beside = Page(path.read_text()), tmp_path / 'a page (1)%_images'
    assert shown == [30] and len(page.pictures) == 30 * 4
    assert len(list(beside.iterdir())) == 6 * 2
    assert len([a for a in page.addresses if a.startswith('a%20page%20%281%29%25_images/')]) == 12
    assert 'All 30 images. The pictures of 6 (' in page.words
    with Image.open(next(beside.glob('*.png'))) as layers:
        assert layers.mode == 'P' and layers.height % 3 == 0

    write_report(str(path), results, images=13)
    assert '26 of 30 images: the 13 lowest and the 13 highest' in Page(path.read_text()).words
    assert len(list(beside.iterdir())) == 2 * 2
    (beside / 'mine.txt').touch()
    for images in (13, 1):
        with pytest.raises(InputError, match=r'holds\s+mine.txt: move it, or choose another'):
            write_report(str(path), results, images=images)
    (beside / 'mine.txt').unlink()
    write_report(str(path), results, images=2)
    assert not beside.exists()


def test_two_runs_of_other_images_are_refused(folder):
    a, b = (read_results(str(folder / f'{name}.json')) for name in 'ab')
    b.images.names[1] = 'other.jpg'
    with pytest.raises(InputError, match='ADE_val_00000002.jpg is in one of them alone'):
        write_report(str(folder / 'no.html'), a, b)
    b = read_results(str(folder / 'b.json'))
    b.images.pixels[0] += 1
    with pytest.raises(InputError, match='different labels, of ADE_val_00000001.jpg first'):
        write_report(str(folder / 'no.html'), a, b)
    b.run['classes'].pop()
    with pytest.raises(InputError, match='150 classes, .* 149'):
        write_report(str(folder / 'no.html'), a, b)
    assert not (folder / 'no.html').exists()


@needs_browser
def test_browser_shows_sorts_and_filters(drawn, folder, tmp_path):
    a, b = (read_results(str(drawn / f'{name}.json')) for name in 'ab')
    a.run['classes'][1] = b.run['classes'][1] = '<b>bold & "quoted"</b>'
    write_report(str(tmp_path / 'one.html'), b, images=None)
    write_report(str(tmp_path / 'two.html'), a, b, images=1)
    write_leaderboard(str(tmp_path / 'many.html'), [str(drawn), *(
        str(folder / f'{name}.json') for folder in (drawn, folder) for name in 'ab')])
    with Browser(360, 740) as browser:
        for name, theme, low, high in (('one', 'light', 200, 256), ('two', 'dark', 0, 60),
                                       ('many', 'dark', 0, 60)):
            browser.media(prefers_color_scheme=theme)
            browser.open(tmp_path / f'{name}.html')
            browser.screenshot(tmp_path / f'{theme}.png')
            assert low <= np.median(np.asarray(Image.open(tmp_path / f'{theme}.png'))) < high
            browser.run('document.querySelectorAll("details").forEach(d => d.open = true)')
            browser.run('document.querySelectorAll(".card + .card").forEach(c => c.remove())')
            assert browser.axe() == []  # takes long on many cards
            assert browser.run('document.documentElement.scrollWidth') <= 360
        browser.open(tmp_path / 'one.html')
        browser.press('Tab')
        assert browser.run('document.activeElement.getBoundingClientRect().top >= 0 && '
                           'document.activeElement.textContent') == 'Skip to the content'
        check_table(browser)
        check_matrix(browser)
        check_gallery(browser)
        assert browser.messages == []
        beside = [request for request in browser.requests if not request.startswith('data:')]
        assert beside and all(request.startswith('file:') for request in beside)
        shutil.rmtree(tmp_path / 'one_images')
        browser.open(tmp_path / 'one.html')
        browser.wait('!document.querySelector("[data-missing]").hidden')


def check_table(browser):
    table = 'document.querySelector("table.sortable")'
    names = f'[...{table}.tBodies[0].rows].map(row => row.cells[0].dataset.value)'
    click = table + '.tHead.rows[0].cells[{}].querySelector("button").click()'
    by_iou = browser.run(names)
    browser.run(click.format(0))
    assert browser.run(names) == sorted(by_iou)
    browser.run(click.format(1))
    assert browser.run(names)[0] == by_iou[0]  # the largest first
    browser.run(click.format(1))
    assert browser.run(names)[-1] == by_iou[0]
    assert browser.run(f'{table}.tHead.rows[0].cells[1].ariaSort') == 'ascending'
    browser.run('(() => { const s = document.querySelector("[data-filter]"); s.value = "BOLD"; '
                's.dispatchEvent(new Event("input")); })()')
    assert browser.run(f'[...{table}.tBodies[0].rows].filter(r => !r.hidden).length') == 1


def check_matrix(browser):
    browser.run('document.querySelector("#matrix td[tabindex=\'0\']").focus()')
    text = 'document.querySelector("[data-cell]").textContent'
    assert browser.run(text).startswith('class 0 is found: ')
    browser.press('ArrowRight')
    assert browser.run(text).startswith('class 0 is taken for <b>bold & "quoted"</b>: ')
    browser.press('ArrowDown')
    browser.press('End')
    assert browser.run(text).startswith('<b>bold & "quoted"</b> is taken for others: ')
    assert browser.run('document.querySelectorAll("#matrix td[tabindex=\'0\']").length') == 1
    browser.press('Enter')
    fields = 'document.forms[0].elements'
    assert browser.run(f'[{fields}.class.value, {fields}.kind.value]') == ['1', 'confused']
    assert browser.run(f'document.activeElement === {fields}.class')


def check_gallery(browser):
    def choose(name, value):
        browser.run(f'document.forms[0].elements["{name}"].value = "{value}"; '
                    f'document.forms[0].elements["{name}"].dispatchEvent('
                    'new Event("input", {bubbles: true}))')
        return browser.run('document.querySelector("[data-count]").textContent')

    def cards(key):
        return browser.run(f'[...document.querySelectorAll(".card")].map(c => c.dataset.{key})')

    def scores():
        return [float(score) for score in cards('score')]

    choose('kind', 'shown')
    choose('class', '')
    assert len(cards('name')) == 12
    browser.run('document.querySelector(".more").click()')
    assert len(cards('name')) == 24 and scores() == sorted(scores())
    assert choose('order', '-1').startswith('30 of 30') and scores() == sorted(scores())[::-1]
    choose('order', 'name')
    assert cards('name') == sorted(cards('name'))
    assert choose('class', '8').startswith('5 of 30')
    assert all('8' in shown.split() for shown in cards('shown'))
    choose('kind', 'confused')
    assert all('8' in confused.split() for confused in cards('confused'))
    choose('class', '')
    assert choose('name', '001').startswith('11 of 30')
    choose('name', '')
    middle = int(np.median(scores()))
    choose('low', middle)
    assert 0 < len(cards('name')) and min(scores()) >= middle
    choose('opacity', '0')
    assert browser.run('getComputedStyle(document.querySelector(".layer")).opacity') == '0'
    choose('size', 'large')
    assert browser.run('document.documentElement.scrollWidth') <= 360


def test_tool_writes_the_page_beside_the_results(folder, run_tool):
    a, b = folder / 'a.json', folder / 'b.json'
    for words, out, said in (([a], 'a.html', 'config: mIoU '),
                             ([a, b], 'b_compared.html', 'B - A: +')):
        code, output, error = run_tool('report.py', *words)
        assert (code, output) == (0, f'{folder / out}\n') and said in error
        assert (folder / out).read_text().endswith('</html>\n')
    code, _, error = run_tool('report.py', folder / 'none.json')
    assert code != 0
    assert 'none.json does not exist' in error
