"""The documentation site: what its hooks make of pages, and that it works without a network."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.browser import Browser, needs_browser
from helpers.commands import ROOT
from helpers.docs import script

links, needs, api = map(script, ('links', 'needs', 'api'))


@pytest.mark.parametrize('page, target, expected', [
    ('gpu.md', 'resume.md#on-a-gpu', 'resume.md#on-a-gpu'),
    ('gpu.md', '../README.md#data', 'overview.md#data'),
    ('api/index.md', '../../CHANGELOG.md', '../changelog.md'),
    ('overview.md', 'docs/gpu.md#measured', 'gpu.md#measured'),
    ('overview.md', 'docs/demo.png', 'demo.png'),
    ('gpu.md', '../mmseg_custom/errors.py', 'files/mmseg_custom/errors.py.md'),
    ('overview.md', 'NOTICE', 'files/NOTICE.md'),
    ('gpu.md', 'https://pytorch.org', 'https://pytorch.org'),
    ('gpu.md', '#memory', '#memory')])
def test_links_that_github_follows_lead_to_the_page_of_the_site(page, target, expected):
    assert links.rewrite(ROOT, page, f'[text]({target})') == (f'[text]({expected})', [])


@pytest.mark.parametrize('text, expected', [
    ('[resume.md](resume.md#on-a-gpu)', '[Interrupted runs](resume.md#on-a-gpu)'),
    ('[this](resume.md)', '[this](resume.md)'),
    ('![a drawing](architecture.svg)', '![a drawing](architecture.svg)')])
def test_a_link_that_shows_the_name_of_a_page_shows_its_title(text, expected):
    titles = {'resume.md': 'Interrupted runs'}
    assert links.rewrite(ROOT, 'gpu.md', text, titles) == (expected, [])


@pytest.mark.parametrize('target', ['../no_such_file.py', 'no_such_page.md', '../../outside.md',
                                    'htps://pytorch.org', 'https:pytorch.org', '#'])
def test_a_link_to_nothing_is_a_fault(target):
    _, faults = links.rewrite(ROOT, 'gpu.md', f'see [this]({target})')
    assert len(faults) == 1 and target in faults[0]


def test_code_has_no_links():
    text = '`[a](no_such.md)`\n\n```python\nrows[0](no_such.md)\n```\n'
    assert links.rewrite(ROOT, 'gpu.md', text) == (text, [])


def test_a_linked_file_is_shown():
    text = 'see [errors](../mmseg_custom/errors.py) and [README](../README.md)'
    assert links.outside(ROOT, 'gpu.md', text) == {'mmseg_custom/errors.py'}
    assert 'class InputError' in links.show(ROOT, 'mmseg_custom/errors.py')


def test_marks_are_shown_and_belong_to_their_block():
    page = ('<!-- needs: 8 GPUs, ADE20K data -->\n```sh\nsh dist_train.sh\n```\n\n'
            '```sh\npython train.py\n```\n')
    assert '<p class="needs">Needs: 8 GPUs, ADE20K data</p>' in needs.show(page)
    assert [(block.needs, block.line) for block in needs.blocks(page)] == [
        (['8 GPUs', 'ADE20K data'], 3), ([], 7)]


@pytest.mark.parametrize('mark', ['a good mood', '8 GPUs,', 'gpu'])
def test_a_mark_with_unknown_words_is_refused(mark):
    with pytest.raises(ValueError, match='expected one of data, weights'):
        needs.show(f'<!-- needs: {mark} -->\n')


def test_every_module_is_on_one_api_page():
    pages = {path.name: path.read_text() for path in (ROOT / 'docs/api').glob('*.md')}
    assert not api.missing(ROOT, pages)
    shown = [module for text in pages.values() for module in api.DIRECTIVE.findall(
        api.expand(ROOT, text, pages.values()))]
    assert len(shown) == len(set(shown))
    pages['layers.md'] = ''
    assert 'mmseg_custom.layers.block' in api.missing(ROOT, pages)


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('site')
    done = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', folder], cwd=ROOT,
        capture_output=True, text=True, env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'})
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize('width', [1280, 390])
def test_pages_opened_as_files_search_and_fetch_nothing(site, width):
    with Browser(width) as browser:
        browser.open(site / 'resume.html')
        browser.run('document.querySelector("[data-md-toggle=search]").click()')
        browser.run('(query => { query.value = "feature cache"; query.dispatchEvent('
                    'new Event("keyup")); })(document.querySelector("[name=query]"))')
        browser.wait('[...document.querySelectorAll(".md-search-result__link")].some('
                     'link => link.href.includes("feature_cache.html"))')
        assert not browser.messages
        assert all(address.startswith(('file:', 'data:')) for address in browser.requests)
        assert browser.run('document.documentElement.scrollWidth') <= width
