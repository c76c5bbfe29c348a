"""Archives that are damaged, that lead elsewhere, or that unpack to more than they say."""
import io
import os
import random
import stat
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
from helpers.data import draw_data
from helpers.faults import Case, Outcome, damaged

pytestmark = pytest.mark.slow
NAME = 'ADEChallengeData2016'
IMAGE = f'{NAME}/images/training/ADE_train_00000001.jpg'


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return draw_data(tmp_path_factory.mktemp('data'), train=3, val=2)


def files_of(data: Path) -> dict[str, bytes]:
    return {f'{NAME}/{path.relative_to(data)}': path.read_bytes()
            for path in sorted(data.rglob('*')) if path.is_file()}


def zipped(files: dict, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Zips contents by names; a name may be a ZipInfo."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def prepares(content: bytes):
    def make(folder: Path) -> list:
        (folder / 'data.zip').write_bytes(content)
        return ['prepare_data.py', 'ade20k', folder / 'data.zip', '--out', folder / 'ade',
                '--subset', '--workers', 1]
    return make


def complete(data: Path):
    expected = files_of(data)

    def check(outcome: Outcome) -> str | None:
        root = outcome.folder / 'ade'
        found = {str(path.relative_to(root)): path.read_bytes()
                 for path in (root / NAME).rglob('*') if path.is_file()}
        wrong = [name for name in found if found[name] != expected.get(name)]
        return f'{wrong[0]} has another content' if wrong else None
    return check


def test_damaged_archives(data, assert_right):
    content, rng = zipped(files_of(data)), random.Random(0)
    assert_right([Case('zip', prepares(content), complete(data), must_pass=True),
                  *(Case(f'zip: {what}', prepares(bad), complete(data))
                    for _ in range(3) for what, bad in damaged(content, rng))])


def linked(name: str, target: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def test_archives_that_lead_elsewhere(data, assert_right):
    """Nothing is written outside the folder; what is asked for may be there."""
    files = files_of(data)
    names = ['../evil.jpg', f'{NAME}/../../evil.jpg', '/tmp/evil.jpg', f'{IMAGE}/../../../x.jpg',
             f'{NAME}\\..\\..\\evil.jpg', 'C:\\evil.jpg', f'{NAME}/images/training/../../../e.jpg',
             f'{NAME}/images/training/\n.jpg', f'{NAME}/images/training/{"x" * 300}.jpg',
             f'{NAME}/images/training/a\0b.jpg', f'{NAME}/images/training/.jpg', '/', '.',
             f'{NAME}/images/training/ADE_train_00000001.jpg/x.jpg',
             f'{NAME}/images/training/con.jpg', f'{NAME}/images/training/ADE_TRAIN_00000001.JPG']
    cases = [Case(f'zip: a member {name!r}', prepares(zipped({**files, name: b'evil'})))
             for name in names]
    for name, target in ((IMAGE, '/etc/passwd'), (f'{NAME}/images/training', '/tmp'),
                         (f'{NAME}/images', '../../..'), (IMAGE, IMAGE)):
        rest = {key: value for key, value in files.items() if not key.startswith(name)}
        cases.append(Case(f'zip: a link {name} -> {target}', prepares(
            zipped({linked(name, target): target.encode(), **files} if name != IMAGE
                   else {**rest, linked(name, target): target.encode()}))))
    assert_right(cases)


def test_archives_that_say_wrong_things(data, assert_right):
    files = files_of(data)
    content = zipped(files)
    at = content.index(b'PK\x01\x02')  # the first entry of the directory

    def field(offset, form, value):
        size = struct.calcsize(form)
        return content[:at + offset] + struct.pack(form, value) + content[at + offset + size:]
    large = zipped({**files, f'{NAME}/images/training/ADE_train_00000009.jpg': bytes(300 << 20)})
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, 'w') as archive:
        for name, one in files.items():
            archive.writestr(name, one)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            archive.writestr(IMAGE, b'another')
    pretended = zipfile.ZipInfo(IMAGE)
    assert_right([
        Case('zip: an encrypted member', prepares(field(8, '<H', 1)), must_fail=True),
        Case('zip: an unknown method', prepares(field(10, '<H', 77)), must_fail=True),
        Case('zip: another CRC', prepares(field(16, '<I', 0x12345678)), must_fail=True),
        Case('zip: a size of 4 GB', prepares(field(24, '<I', 0xfffffff0)), complete(data)),
        Case('zip: a size of 0', prepares(field(24, '<I', 0)), must_fail=True),
        Case('zip: compressed to 4 GB', prepares(field(20, '<I', 0xfffffff0)), complete(data)),
        Case('zip: an offset beyond the end', prepares(field(42, '<I', 0x7fffffff)),
             must_fail=True),
        Case('zip: 300 MB of zeros', prepares(large), must_fail=True),
        Case('zip: a member twice', prepares(twice.getvalue())),
        Case('zip: no members', prepares(zipped({})), must_fail=True),
        Case('zip: other members', prepares(zipped({'a/b.txt': b'x'})), must_fail=True),
        Case('zip: in a zip', prepares(zipped({'data.zip': content})), must_fail=True),
        Case('zip: bzip2', prepares(zipped(files, zipfile.ZIP_BZIP2)), complete(data)),
        Case('zip: an image that is text', prepares(zipped({**files, pretended: b'x'})),
             must_fail=True),
        Case('zip: a folder instead', lambda folder: ['prepare_data.py', 'ade20k', folder, '--out',
                                                      folder / 'ade'], must_fail=True),
        Case('zip: a device', lambda folder: ['prepare_data.py', 'ade20k', '/dev/zero', '--out',
                                              folder / 'ade'], must_fail=True),
        Case('zip: a pipe', lambda folder: [os.mkfifo(folder / 'p'), 'prepare_data.py', 'ade20k',
                                            folder / 'p', '--out', folder / 'ade'][1:],
             must_fail=True),
    ])
