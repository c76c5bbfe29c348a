"""The locks, and what is written from them: licences, the bill of materials, the audit's report."""
import importlib.util
import sys

import pytest
from helpers.commands import ROOT
from packaging.requirements import Requirement

REQUIREMENTS = ROOT / 'requirements'
VERSIONS = ('3.10', '3.11', '3.12', '3.13', '3.14')
# Lock -> the files that it is made from.
SOURCES = {'dev': ('runtime', 'test', 'docs'), 'runtime': ('runtime',), 'openmmlab': ('openmmlab',)}


def load(name):
    """Imports a script of scripts/, which are no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f'scripts/{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


packages = load('packages')


def pinned(lines, version, system='linux'):
    """Returns the versions that lines of requirements pin for a version of Python, by name."""
    found = {}
    for line in lines:
        wanted = Requirement(line)
        environment = dict(python_version=version, python_full_version=f'{version}.6',
                           sys_platform=system, platform_machine='x86_64',
                           platform_system=system.capitalize(), os_name='posix',
                           platform_python_implementation='CPython',
                           implementation_name='cpython')
        if wanted.marker is None or wanted.marker.evaluate(environment):
            assert wanted.name not in found, f'{wanted.name} twice for Python {version}'
            found[wanted.name.lower().replace('_', '-')] = str(wanted.specifier)
    return found


def lines_of(name):
    return [line for line in (REQUIREMENTS / f'{name}.txt').read_text().splitlines()
            if line and not line.startswith('#')]


def lock_lines(lock):
    return [f'{package.name}=={package.version}' + f' ; {package.marker}' * bool(package.marker)
            for package in packages.read_lock(lock)]


@pytest.mark.parametrize('lock', SOURCES)
@pytest.mark.parametrize('version', VERSIONS)
def test_lock_fits_the_requirements(lock, version):
    """`make lock` writes it anew after a change of them."""
    wanted = pinned([line for name in SOURCES[lock] for line in lines_of(name)], version)
    locked = pinned(lock_lines(lock), version)
    assert wanted.items() <= locked.items()
    if lock == 'runtime':
        assert locked.items() <= pinned(lock_lines('dev'), version).items()


@pytest.mark.parametrize('lock', SOURCES)
def test_lock_has_hashes_and_names_no_index(lock):
    text = (REQUIREMENTS / f'{lock}.lock').read_text()
    assert '//' not in text and '--index' not in text and '--find-links' not in text
    for package in packages.read_lock(lock):
        assert package.hashes and package.needed_by, package.name
        assert all(len(value) == 64 for value in package.hashes)


def test_deployment_needs_a_part_of_the_run_time():
    assert set(lines_of('deploy')) < set(lines_of('runtime'))


def test_page_of_licences_has_the_packages_of_the_locks():
    """`make licences` writes the page anew."""
    assert packages.licences_on_page().keys() == {
        package.name for package in packages.all_packages()}


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason='the page is made on Python 3.11')
def test_licences_are_those_of_the_installed_packages():
    page = packages.licences_on_page()
    known = packages.licences()
    assert {name: page[name] for name in known} == known


def test_bill_of_materials_lists_what_is_installed():
    sbom = load('sbom')
    bill = sbom.bill(seconds=0)
    assert bill == sbom.bill(seconds=0) and bill['metadata']['timestamp'] == '1970-01-01T00:00:00Z'
    components = {entry['name']: entry for entry in bill['components']}
    assert components['torch']['scope'] == components['mmcv-full']['scope'] == 'required'
    assert components['pytest']['scope'] == 'excluded'
    assert components['torch']['licenses'] == [{'license': {'id': 'BSD-3-Clause'}}]
    assert components['tqdm']['licenses'] == [{'expression': 'MPL-2.0 AND MIT'}]
    needs = {entry['ref']: entry['dependsOn'] for entry in bill['dependencies']}
    assert needs.keys() == {*(entry['bom-ref'] for entry in components.values()),
                            bill['metadata']['component']['bom-ref']}
    assert all(reference in needs for needed in needs.values() for reference in needed)
    assert components['numpy']['bom-ref'] in needs[components['torchvision']['bom-ref']]


def test_audit_tells_findings_from_what_was_not_audited():
    report = load('audit_report').report
    clean = dict(name='a', version='1', vulns=[])
    found = dict(name='b', version='2', vulns=[dict(id='PYSEC-1', fix_versions=['3'],
                                                    description='Reads\nbeyond.')])
    skipped = dict(name='c', skip_reason='not found')
    assert report([clean]) == (0, 'audit: nothing is known against 1 packages')
    code, text = report([clean, found])
    assert code == 1 and text.startswith('b 2: PYSEC-1, fixed in 3: Reads beyond.\naudit: 1 advis')
    code, text = report([clean, skipped])
    assert code == 2 and text.startswith('audit: 1 of 2 packages were not audited')
    assert report([found, skipped])[0] == 1
