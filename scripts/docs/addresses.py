"""Asks for every address that the pages link to: python scripts/docs/addresses.py.

Prints those that do not answer with a page; the exit code is 1 if there is one.
"""
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import links

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20  # to wait for an answer
AGENT = {'User-Agent': 'Mozilla/5.0 (link check)'}  # Some servers refuse Python's own.


def fault_of(address: str) -> str | None:
    """Returns what is wrong with an address, or None."""
    request = urllib.request.Request(address.partition('#')[0], headers=AGENT)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return None
    except (urllib.error.URLError, OSError, ValueError) as error:
        return str(error)


def main() -> int:
    """Asks for all addresses; returns the exit code."""
    pages = {}
    for path in [*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')]:
        for address in links.addresses(path.read_text('utf-8')):
            pages.setdefault(address, []).append(str(path.relative_to(ROOT)))
    with ThreadPoolExecutor(8) as pool:
        faults = dict(zip(pages, pool.map(fault_of, pages)))
    wrong = {address: fault for address, fault in faults.items() if fault}
    for address, fault in sorted(wrong.items()):
        print(f'{address} ({", ".join(pages[address])}): {fault}')
    print(f'{len(pages) - len(wrong)} of {len(pages)} addresses answer')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
