"""Writes a software bill of materials, as CycloneDX 1.6 in JSON, from requirements/*.lock.

    python scripts/sbom.py build/sbom.json

It lists what the locks install on this version of Python and system, with the licences of
docs/licences.md, and what asks for what. What is needed at run time has the scope `required`, what
tests and docs add `excluded`. The hashes of the files are in the locks, whose own are properties of
the bill. SOURCE_DATE_EPOCH sets its time, so that the same locks give the same file.
"""
import hashlib
import json
import os
import re
import sys
import time
import uuid
from pathlib import Path

from packages import LOCKS, ROOT, Locked, all_packages, licences_on_page
from packaging.markers import Marker

NAME = 'mmseg_custom'


def version() -> str:
    """Returns the version of this project."""
    text = (ROOT / NAME / 'version.py').read_text(encoding='utf-8')
    found = re.search("__version__ = '(.+)'", text)
    assert found is not None
    return found[1]


def purl(name: str, version: str) -> str:
    """Returns the package URL, which also is the reference within the bill."""
    return f'pkg:pypi/{name}@{version}'


def licence_entries(expression: str) -> list[dict]:
    """Returns the field `licenses` of a component."""
    if ' ' in expression:
        return [{'expression': expression}]
    kind = 'name' if expression.startswith('LicenseRef-') else 'id'
    return [{'license': {kind: expression}}]


def component(package: Locked, licence: str) -> dict:
    """Returns the entry of a package."""
    reference = purl(package.name, package.version)
    return {'type': 'library', 'bom-ref': reference, 'name': package.name,
            'version': package.version, 'purl': reference,
            'scope': 'excluded' if package.lock == 'dev' else 'required',
            'licenses': licence_entries(licence)}


def dependencies(packages: list[Locked], root: str) -> list[dict]:
    """Returns which package asks for which; this project for those of requirements/*.txt."""
    references = {package.name: purl(package.name, package.version) for package in packages}
    asked: dict[str, list[str]] = {root: [], **{reference: [] for reference in references.values()}}
    for package in packages:
        for name in package.needed_by:
            by = root if name.startswith('-r ') else references.get(name)
            if by is not None and references[package.name] not in asked[by]:
                asked[by].append(references[package.name])
    return [{'ref': reference, 'dependsOn': sorted(needed)} for reference, needed in asked.items()]


def bill(seconds: int) -> dict:
    """Returns the bill of materials.

    Args:
        seconds: Its time, in seconds since 1970.
    """
    known = licences_on_page()
    packages = [package for package in all_packages()
                if not package.marker or Marker(package.marker).evaluate()]
    root = purl(NAME, version())
    hashes = [(lock, hashlib.sha256((ROOT / f'requirements/{lock}.lock').read_bytes()).hexdigest())
              for lock in LOCKS]
    return {
        'bomFormat': 'CycloneDX', 'specVersion': '1.6', 'version': 1,
        'serialNumber': f'urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, f"{hashes} {seconds}")}',
        'metadata': {
            'timestamp': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(seconds)),
            'component': {'type': 'application', 'bom-ref': root, 'name': NAME,
                          'version': version(), 'purl': root,
                          'licenses': licence_entries('Apache-2.0')},
            'properties': [{'name': f'requirements/{lock}.lock:sha256', 'value': value}
                           for lock, value in hashes],
        },
        'components': [component(package, known[package.name]) for package in packages],
        'dependencies': dependencies(packages, root),
    }


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    now = int(os.environ.get('SOURCE_DATE_EPOCH', time.time()))
    part = target.with_name(target.name + '.part')
    part.write_text(json.dumps(bill(now), indent=2) + '\n', encoding='utf-8')
    part.replace(target)
