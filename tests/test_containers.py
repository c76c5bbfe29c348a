"""Dockerfile, .dockerignore and the recipe for Apptainer: what can be checked without building."""
import os
import re
import shutil
import subprocess

import pytest
from helpers.commands import ROOT, run

DOCKERFILE = (ROOT / 'Dockerfile').read_text()
APPTAINER = (ROOT / 'containers/internvit-seg.def').read_text()


@pytest.mark.skipif(not shutil.which('hadolint'), reason='hadolint is not installed')
def test_hadolint_has_no_complaint():
    run('hadolint', ROOT / 'Dockerfile')


def test_what_is_copied_exists_and_is_not_ignored():
    kept = [line[1:] for line in (ROOT / '.dockerignore').read_text().splitlines()
            if line.startswith('!')]
    assert all(list(ROOT.glob(pattern)) for pattern in kept)
    # What the package and its tools read from their folder.
    assert {'mmseg_custom', 'tools', 'configs', 'setup.py', 'pyproject.toml', 'README.md',
            'requirements/*.lock'} <= set(kept)
    sources = [word for line in re.findall('(?m)^COPY (?!--from)(.+)$', DOCKERFILE)
               for word in line.split()[:-1]]
    files = APPTAINER.split('%files')[1].split('%post')[0].split('\n')
    sources += [line.split()[0] for line in files if line.strip()]
    assert len(sources) >= 7 and all((ROOT / path).exists() for path in sources)


@pytest.mark.parametrize('recipe', [DOCKERFILE, APPTAINER])
def test_everything_is_checked_against_the_locks(recipe):
    """All that comes from an index, so that an image holds what the tests ran with."""
    commands = re.findall(r'pip install((?:.|\\\n)*?)(?=\n(?!\s+-)|&&|$)', recipe)
    assert len(commands) >= 2
    for command in commands:
        assert '--require-hashes' in command and '.lock' in command or '--editable .' in command
    (python,) = {version for version in re.findall(r'(?i)from:? python:([\d.]+)-', recipe)}
    assert f'python{python}' in (ROOT / 'scripts/setup_env.sh').read_text()


def test_slurm_starts_python_in_the_image(tmp_path):
    for name in ('srun', 'apptainer'):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\n' + (
            'while [ "$1" != "${PYTHON:-}" ]; do shift; done; exec "$@"\n' * (name == 'srun')))
        (tmp_path / name).chmod(0o755)
    out = run('sh', ROOT / 'slurm_train.sh', 'gpu', 'job', 'a config.py', GPUS='2',
              BIND='/data,/scratch', PYTHON=str(ROOT / 'containers/python.sh'),
              INTERNVIT_SEG_IMAGE='/images/seg.sif', PATH=f'{tmp_path}:{os.environ["PATH"]}')
    assert out.splitlines()[-1] == (
        f'apptainer exec --nv --bind {ROOT},/data,/scratch /images/seg.sif python -u '
        f'{ROOT}/tools/train.py a config.py --launcher slurm')


def test_image_has_to_be_named():
    env = {name: value for name, value in os.environ.items() if name != 'INTERNVIT_SEG_IMAGE'}
    done = subprocess.run([ROOT / 'containers/python.sh'], env=env, capture_output=True, text=True)
    assert done.returncode == 2 and 'INTERNVIT_SEG_IMAGE is not set' in done.stderr
