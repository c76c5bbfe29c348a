"""Reads a page of tools/report.py."""
import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Checks that tags close, and collects what a page refers to.

    Attributes:
        addresses: What it refers to.
        pictures: Names of its pictures.
        words: Its text, with single spaces.
    """

    VOID = {'meta', 'img', 'input', 'br'}

    def __init__(self, text: str):
        super().__init__()
        self.open, self.addresses, self.pictures, self._text = [], [], [], ''
        self.feed(text)
        assert not self.open

    @property
    def words(self) -> str:
        return ' '.join(self._text.replace('\u202f', ' ').split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[key] for key in ('src', 'href') if key in attributes]
        self.addresses += re.findall(r'url\((.*?)\)', attributes.get('style', ''))
        if 'pic' in attributes.get('class', '').split():
            self.pictures.append(attributes['aria-label'])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ('style', 'script'):
            self._text += f'{data} '


def row_of(text: str, name: str) -> dict[str, str]:
    """Returns the row of a table of a page whose first cell has a name: title -> text."""
    table = next(part for part in text.split('<table')
                 if f'<th scope="row" class="name" data-value="{name}">' in part
                 or re.search(rf'<th scope="row" class="name"[^>]*>\s*(<a [^>]*>)?{name}<', part))
    titles = re.findall(r'<button [^>]*>(.*?)</button>', table)
    rows = [[' '.join(re.sub('<[^>]*>', ' ', cell.partition('>')[2]).split())
             for cell in re.split('<t[hd] ', row)[1:]] for row in table.split('<tr>')[2:]]
    return dict(zip(titles, next(row for row in rows if row[0] == name)))
