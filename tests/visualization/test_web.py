"""The page in the browser: what it is sent, and that a real browser shows it."""
import base64
import io
import json
import re
import shutil
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from helpers.browser import Browser, needs_browser
from helpers.commands import ROOT
from PIL import Image

from mmseg_custom.errors import InputError
from mmseg_custom.visualization.web.examples import describe, examples_for, images_of
from mmseg_custom.visualization.web.view import view

CLASSES = ['wall', 'sky', '<b>sea</b>']
PALETTE = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]])


def halves(image):
    """A network that knows the left half as sky, the right one as sea."""
    labels = np.ones(image.shape[:2], np.int64)
    labels[:, image.shape[1] // 2:] = 2
    return labels


def test_view_has_every_label():
    labels = np.random.default_rng(0).integers(0, 3, (30, 50))
    shown = json.loads(view(np.zeros((30, 50, 3), np.uint8), labels, CLASSES, PALETTE))
    numbers, lengths = np.array(shown['runs']).reshape(-1, 2).T
    np.testing.assert_array_equal(np.repeat(numbers, lengths).reshape(30, 50), labels)
    assert shown['classes']['1'] == dict(name='sky', colour=[0, 200, 0],
                                         share=float((labels == 1).mean()))


def test_view_of_a_large_image_is_smaller():
    image = np.zeros((1000, 4000, 3), np.uint8)
    shown = json.loads(view(image, halves(image), CLASSES, PALETTE))
    assert (shown['width'], shown['height']) == (1600, 400)
    assert shown['runs'] == [1, 800, 2, 800] * 400
    photo = Image.open(io.BytesIO(base64.b64decode(shown['photo'].partition(',')[2])))
    assert photo.size == (1600, 400)


def test_images_of_a_data_set(tmp_path, shared_data):
    folder = tmp_path / 'images/val'
    for number in range(9):
        (folder / f'city_{number % 2}').mkdir(parents=True, exist_ok=True)
        (folder / f'city_{number % 2}/{number}.JPG').touch()
    (folder / 'list.txt').touch()
    options = dict(data_root=str(tmp_path), img_dir='images/val')
    found = images_of(options, count=3)
    assert [path.removeprefix(f'{folder}/') for path in found] == [
        'city_0/0.JPG', 'city_0/6.JPG', 'city_1/3.JPG']
    assert len(images_of(options, count=20)) == 9
    for options in (dict(img_dir='nowhere'), dict(img_dir=['a', 'b']), {},
                    dict(description='none.yaml', part='val')):
        assert images_of(options) == []


def test_examples_are_drawn_where_there_is_no_data_or_it_is_not_to_be_shown(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    Image.new('RGB', (9, 7)).save(folder / 'own.png')
    own, drawn = dict(img_dir=str(folder)), np.zeros((5, 6, 3), np.uint8)
    assert examples_for(own, lambda number: drawn, False) == [str(folder / 'own.png')]
    for options, hides in ((own, True), (dict(img_dir='nowhere'), False)):
        found = examples_for([options], lambda number: drawn, hides)
        assert len(found) == 6 and Image.open(found[5]).size == (6, 5)


def test_what_the_page_says_of_itself():
    text = describe('InternViT6B with FCNHead, 3 million parameters', 150, 'a.pth', 'cuda')
    assert '150 classes' in text and 'on a GPU. Its weights are those of `a.pth`.' in text
    assert 'untrained' in describe('a network', 3, 'none', 'cpu')


@pytest.fixture
def address(tmp_path):
    app = pytest.importorskip('mmseg_custom.visualization.web.app', exc_type=ImportError,
                              reason="needs gradio: pip install -e '.[web]'")
    Image.new('RGB', (40, 30), 'teal').save(tmp_path / 'example.png')
    page = app.build(halves, CLASSES, PALETTE, title='tiny', note='untrained',
                     first_label=1, megapixels=0.01, examples=[str(tmp_path / 'example.png')])
    yield app.launch(page, '127.0.0.1', None, megabytes=0.05)
    page.close()


def choose(browser, path):
    """Uploads a file in place of what is there."""
    browser.run('document.querySelector("button[aria-label=Clear], button[aria-label=\'Remove '
                'Image\']")?.click()')
    browser.wait('document.querySelector("input[type=file]") !== null')
    browser.upload('input[type=file]', path)


@needs_browser
@pytest.mark.slow
def test_browser_shows_labels_and_refuses_what_is_too_large(address, tmp_path):
    assert address.startswith('http://127.0.0.1:')
    rng = np.random.default_rng(0)
    for name, size in (('a.png', (60, 90)), ('wide.png', (4, 2600))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / name)
    Image.fromarray(rng.integers(0, 256, (150, 150, 3), np.uint8)).save(tmp_path / 'heavy.png')
    (tmp_path / 'text.png').write_text('no image')
    with Browser() as browser:
        browser.open(address)
        browser.wait('document.querySelector("#viewer .empty") !== null')
        choose(browser, tmp_path / 'a.png')
        browser.wait('document.querySelectorAll("#viewer .legend li").length === 2')
        assert browser.run('document.querySelector("#viewer .legend").textContent').count('<b>')
        left, top, width, height = browser.run(
            '(() => { const r = document.querySelector("#viewer canvas").getBoundingClientRect(); '
            'return [r.left, r.top, r.width, r.height]; })()')
        for part, name in ((.25, 'sky'), (.75, '<b>sea</b>')):
            browser.mouse(left + part * width, top + height / 2)
            assert browser.run('document.querySelector("#viewer .tip").textContent') == name
        browser.run('(() => { const o = document.querySelector("#viewer .opacity"); o.value = 20; '
                    'o.dispatchEvent(new Event("input")); })()')
        assert browser.run('document.querySelector("#viewer canvas").style.opacity') == '0.2'
        assert browser.run(
            '[...document.querySelector("#viewer canvas").getContext("2d").getImageData(0, 0, 1, 1)'
            '.data].join()') == '0,200,0,255'
        browser.screenshot(tmp_path / 'page.png')
        browser.run('[...document.querySelectorAll("button")].find('
                    'button => button.textContent.includes("Label map")).click()')
        labels = np.asarray(Image.open(browser.downloaded('a_labels*.png')))
        np.testing.assert_array_equal(labels, halves(np.zeros((60, 90, 3))) + 1)
        for name, message in (('wide.png', '2600x4 pixels: at most 0.01 megapixels'),
                              ('text.png', 'no image that can be read'),
                              ('heavy.png', 'maximum allowed size')):
            choose(browser, tmp_path / name)
            browser.wait(f'document.body.textContent.includes({message!r})')
        assert not [url for url in browser.requests
                    if not re.match(r'(data|blob):|http://127\.0\.0\.1:', url)]


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize('width, scheme', [(1280, 'light'), (375, 'dark')])
def test_before_an_upload(address, width, scheme):
    """Examples, the legend and the endpoint are there, also for keyboards and screen readers."""
    with Browser(width) as browser:
        browser.media(prefers_color_scheme=scheme)
        browser.open(address)
        browser.wait('document.querySelectorAll("#viewer .legend li").length === 3')
        assert '<b>sea</b>' in browser.run('document.querySelector("#viewer .legend").textContent')
        assert browser.axe() == []
        assert browser.run('document.querySelector("#viewer .legend").tabIndex') == 0  # it scrolls
        assert browser.run('document.documentElement.scrollWidth') <= width
        browser.run('document.querySelector("#examples button").click()')
        browser.wait('document.querySelectorAll("#viewer .legend button").length === 2')
        browser.run('document.querySelector("#api summary").click()')
        assert browser.axe() == []
        assert browser.run('document.documentElement.scrollWidth') <= width


@needs_browser
@pytest.mark.slow
def test_the_calls_that_the_page_shows_work(address, tmp_path):
    Image.new('RGB', (90, 60)).save(tmp_path / 'photo.jpg')
    with Browser() as browser:
        browser.open(address)
        browser.wait('document.querySelectorAll("#api pre").length === 2')
        python, shell = browser.run(
            '[...document.querySelectorAll("#api pre")].map(part => part.textContent)')
    for name, words in (('python', [sys.executable, '-c', python]), ('shell', ['sh', '-c', shell])):
        if name == 'shell' and shutil.which('curl') is None:
            continue
        text = subprocess.run(words, cwd=tmp_path, text=True, capture_output=True, timeout=120)
        assert text.returncode == 0, text.stderr
        assert 'photo_labels.png' in text.stdout and '0.5' in text.stdout and 'sky' in text.stdout


@pytest.mark.slow
@pytest.mark.parametrize('file', [str(ROOT / 'docs/demo.png'), __file__])
def test_files_of_the_server_are_no_input(address, file):
    call = f'{address}gradio_api/call/label'
    body = json.dumps(dict(data=[dict(path=file, meta=dict(_type='gradio.FileData'))])).encode()
    request = urllib.request.Request(call, body, {'Content-Type': 'application/json'})
    with urllib.request.urlopen(request, timeout=60) as answer:
        event = json.load(answer)['event_id']
    with urllib.request.urlopen(f'{call}/{event}', timeout=60) as answer:
        text = answer.read().decode()
    assert 'event: error' in text and '_labels.png' not in text and 'no image' not in text


@pytest.mark.slow
def test_port_that_is_taken_is_one_line(address):
    from mmseg_custom.visualization.web import app
    page = app.build(halves, CLASSES, PALETTE, title='tiny')
    port = int(address.rstrip('/').rsplit(':')[-1])
    with pytest.raises(InputError, match=f'--port {port}: in use'):
        app.launch(page, '127.0.0.1', port, megabytes=1)
