"""Links between the pages of `docs`, the pages of the root, and files that are no pages.

GitHub shows every file of the repository, the site the pages of `docs` alone. A file that a page
links to is shown by a page of the site under `files/`, so that no address of a server is needed.
"""
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT_PAGES = {'README.md': 'overview.md', 'CONTRIBUTING.md': 'contributing.md',
              'CHANGELOG.md': 'changelog.md'}
NAMES_OF_PAGES = {page: name for name, page in ROOT_PAGES.items()}
SOURCES = 'files/'
LANGUAGES = {'.py': 'python', '.sh': 'sh', '.yaml': 'yaml', '.toml': 'toml', '.json': 'json'}

# Blocks and spans of code are matched first, so that no link is seen in them.
PATTERN = re.compile(r"""
    ^(?P<fence>`{3,}).*?^(?P=fence)`*\s*$
    | (?<!`)(?P<ticks>`+)(?!`)(?:(?!\n\n).)+?(?<!`)(?P=ticks)(?!`)
    | (?P<text>\[[^]\[`]*)?\]\((?P<target>[^)\s]+)(?=[)\s])
    """, re.MULTILINE | re.DOTALL | re.VERBOSE)


def targets(markdown: str) -> Iterator[re.Match]:
    """Yields the links of a page, those in code left out."""
    return (match for match in PATTERN.finditer(markdown) if match['target'])


def in_repository(page: str) -> str:
    """Returns the path in the repository of a page of the site."""
    return NAMES_OF_PAGES.get(page, posixpath.join('docs', page))


def resolve(page: str, target: str) -> str | None:
    """Returns the path in the repository that a link leads to, or None where it leads elsewhere.

    Links to a heading of the same page, and links with a scheme, lead elsewhere.
    """
    path = target.partition('#')[0]
    if not path or re.match(r'[a-z][a-z0-9+.-]*:', path, re.IGNORECASE):
        return None
    folder = posixpath.dirname(in_repository(page))
    return posixpath.normpath(posixpath.join(folder, path))


def addresses(markdown: str) -> set[str]:
    """Returns the addresses of the network that a page links to."""
    found = [match['target'] for match in targets(markdown)]
    found += re.findall('<(https?:[^>]+)>', markdown)
    return {address for address in found if address.startswith(('http:', 'https:'))}


def is_in_docs(path: str) -> bool:
    """Returns whether the site has a file under its own name."""
    return path.startswith('docs/')


def outside(root: Path, page: str, markdown: str) -> set[str]:
    """Returns the files outside `docs` that a page links to and that are no pages of the site."""
    found = {resolve(page, match['target']) for match in targets(markdown)}
    return {path for path in found if path and not is_in_docs(path) and path not in ROOT_PAGES
            and (root / path).exists() and not path.startswith('..')}


def page_of(path: str) -> str:
    """Returns the page of the site that shows a file outside `docs`."""
    return ROOT_PAGES.get(path) or f'{SOURCES}{path}.md'


def show(root: Path, path: str) -> str:
    """Returns the Markdown of a page that shows a file, or lists a folder."""
    head = f'---\nsearch:\n  exclude: true\nhide: [toc]\n---\n\n# {path}\n\n'
    if (root / path).is_dir():
        names = sorted(entry.name + '/' * entry.is_dir() for entry in (root / path).iterdir()
                       if not entry.name.startswith(('.', '__pycache__')))
        return head + ''.join(f'- `{name}`\n' for name in names)
    language = LANGUAGES.get(posixpath.splitext(path)[1], 'text')
    return f'{head}``````{language}\n{(root / path).read_text("utf-8")}\n``````\n'


def rewrite(root: Path, page: str, markdown: str,
            titles: Mapping[str, str] | None = None) -> tuple[str, list[str]]:
    """Returns a page with the links that the site needs, and what is wrong with its links.

    Args:
        root: Root of the repository.
        page: Path of the page in the site.
        markdown: Text of the page.
        titles: Titles of the pages in the menu: a link that shows the name of a file shows them.
    """
    faults = []

    def replace(match: re.Match) -> str:
        target = match['target']
        path = target and resolve(page, target)
        if not path:
            if target and not re.match('#.|https?://[^/]+[.][^/]|mailto:.+@', target):
                faults.append(f"'{target}' is no address")
            return match[0]
        if path.startswith('..') or not (root / path).exists():
            faults.append(f"link to '{target}', which is not in the repository")
            return match[0]
        there = path.removeprefix('docs/') if is_in_docs(path) else page_of(path)
        text = match['text'] or ''
        if titles and there in titles and text[1:] in (path, posixpath.basename(path)):
            text = f'[{titles[there]}'
        there = posixpath.relpath(there, posixpath.dirname(page) or '.')
        return f'{text}]({there}' + ''.join(target.partition('#')[1:])

    return PATTERN.sub(replace, markdown), faults
