"""The page on test results: what it says, and that a real browser shows and sorts it."""
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.browser import Browser, needs_browser
from helpers.data import write_config
from helpers.results import write_some
from PIL import Image

from mmseg_custom.errors import InputError
from mmseg_custom.evaluation import read_results
from mmseg_custom.visualization.report import write_report


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


class Page(HTMLParser):
    """Checks that tags close, and collects what a page refers to."""

    VOID = {'meta', 'img', 'input', 'br'}

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.images = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[key] for key in ('src', 'href') if key in attributes]
        if tag == 'img':
            self.images.append(attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize('name, pictures', [('one', 3 * 4), ('two', 2 * 5)])
def test_page_is_whole_and_refers_to_nothing_else(folder, name, pictures):
    text = (folder / f'{name}.html').read_text()
    page = Page(text)
    assert len(page.images) == pictures
    assert all(image['alt'] for image in page.images)
    assert all(address.startswith('data:image/webp') for address in page.addresses)
    assert 'url(' not in text and '@import' not in text
    assert not list(folder.glob('*.part'))


def test_page_shows_the_metrics(folder):
    text, results = (folder / 'one.html').read_text(), read_results(str(folder / 'a.json'))
    assert f'<dd>{100 * results.run["metric"]["mIoU"]:.2f}</dd>' in text
    assert '95 % interval' in text and 'mBIoU' in text and 'skipped' in text
    row = re.search(r'<tr>\n<th scope="row" class="name" data-value="wall">.*?</tr>', text,
                    re.DOTALL).group()
    assert f'{100 * results.run["metric"]["IoU.wall"]:.1f}</span>' in row
    pixels = int(results.images.ground_truth_areas(150)[:, 0].sum())
    assert f'{pixels:,}'.replace(',', '\u202f') in row
    assert '147 classes are neither' in text or '146 classes are neither' in text


def test_names_are_escaped(folder, monkeypatch):
    results = read_results(str(folder / 'a.json'))
    results.run['classes'][0] = '<script>alert(1)</script>'
    results.run['config'] = '"><img src=x>.py'
    results.images.names[:] = '<b>.jpg'
    write_report(str(folder / 'escaped.html'), results)
    text = (folder / 'escaped.html').read_text()
    assert '<script>alert' not in text and '<img src=x' not in text and '<b>.jpg' not in text


def test_pictures_are_made_without_the_photos(folder):
    results = read_results(str(folder / 'a.json'))
    results.run['image_folder'] = '/gone'
    write_report(str(folder / 'gone.html'), results, images=1)
    text = (folder / 'gone.html').read_text()
    assert 'The file of the image is not in /gone' in text
    assert len(Page(text).images) == 2 * 3


def test_no_images_are_shown_on_request(folder):
    write_report(str(folder / 'none.html'), read_results(str(folder / 'a.json')), images=0)
    assert not Page((folder / 'none.html').read_text()).images


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
def test_browser_shows_sorts_and_filters(folder, tmp_path):
    with Browser() as browser:
        browser.open(folder / 'one.html')
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
        browser.run('(() => { const s = document.querySelector("[data-filter]"); s.value = "WAL"; '
                    's.dispatchEvent(new Event("input")); })()')
        assert browser.run(f'[...{table}.tBodies[0].rows].filter(r => !r.hidden).length') == 1
        assert browser.run('[...document.images].every(i => i.complete && i.naturalWidth > 0)')
        for theme, low, high in (('light', 200, 256), ('dark', 0, 60)):
            browser.media(prefers_color_scheme=theme)
            browser.screenshot(tmp_path / f'{theme}.png')
            assert low <= np.median(np.asarray(Image.open(tmp_path / f'{theme}.png'))) < high
        browser.open(folder / 'two.html')
        assert 'B is better' in browser.run('document.querySelector("h1").textContent')
        assert browser.messages == []
        assert [r for r in browser.requests if not r.startswith(('data:', 'file:'))] == []


def test_tool_writes_the_page_beside_the_results(folder, run_tool):
    for words, out in (([folder / 'a.json'], 'a.html'),
                       ([folder / 'a.json', folder / 'b.json'], 'b_compared.html')):
        assert run_tool('report.py', *words)[:2] == (0, f'{folder / out}\n')
        assert (folder / out).read_text().endswith('</html>\n')
    code, _, error = run_tool('report.py', folder / 'none.json')
    assert code != 0
    assert 'none.json do not exist' in error
