"""What the site adds to the pages that GitHub shows, as mkdocs' hooks.

- README, CONTRIBUTING and CHANGELOG are pages of the site, without copies in the repository.
- Links to files outside `docs` lead to pages that show these files; a link to nothing is a warning,
  which ends a strict build.
- Marks on blocks of commands (`<!-- needs: data, GPU -->`) are shown as notes.
- The API pages name every module of the package.
"""
import logging
from pathlib import Path

import api
import links
import needs
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

API = 'api/'
log = logging.getLogger('mkdocs.hooks.docs')


def root_of(config: MkDocsConfig) -> Path:
    """Returns the root of the repository."""
    return Path(config.config_file_path).parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the root, and a page for each file outside `docs` that a page links to."""
    root = root_of(config)
    for name, page in links.ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(root / name).read_text('utf-8')))
    linked = {target for file in files.documentation_pages()
              for target in links.outside(root, file.src_uri, file.content_string)}
    for target in sorted(linked):
        files.append(File.generated(config, links.page_of(target), content=links.show(root, target),
                                    inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def titles_in(nav: list[str | dict]) -> dict[str, str]:
    """Returns the titles of the pages in a menu, by their paths."""
    titles = {}
    for entry in nav:
        for title, inner in entry.items() if isinstance(entry, dict) else ():
            titles |= titles_in(inner) if isinstance(inner, list) else {inner: title}
    return titles


def api_pages(files: Files) -> dict[str, str]:
    """Returns the text of the API pages, by their paths."""
    return {file.src_uri: file.content_string for file in files.documentation_pages()
            if file.src_uri.startswith(API)}


def on_nav(nav: object, config: MkDocsConfig, files: Files) -> None:
    """Refuses API pages that leave out modules of the package."""
    for module in api.missing(root_of(config), api_pages(files)):
        log.warning(f'no page of docs/{API} has {module}')


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links out of `docs`, and marks on commands, into what the site shows."""
    if page.file.src_uri.startswith(API):
        page.meta['search'] = {'boost': 0.3}  # A search finds the guides first.
        markdown = api.expand(root_of(config), markdown, api_pages(files).values())
    if page.file.src_uri.startswith(links.SOURCES):
        return markdown
    markdown, faults = links.rewrite(root_of(config), page.file.src_uri, markdown,
                                     titles_in(config.nav))
    for fault in faults:
        log.warning(f'{page.file.src_uri}: {fault}')
    try:
        return needs.show(markdown)
    except ValueError as error:
        raise PluginError(f'{page.file.src_uri}: {error}') from error


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keeps source code out of the search."""
    return html.replace('<details class="mkdocstrings-source"',
                        '<details data-search-exclude class="mkdocstrings-source"')
