"""Installs `mmseg_custom`, and `mmcv/_ext.py` beside it where mmcv-full was built without ops."""

import os
import re
import sys
import sysconfig

from setuptools import Distribution, find_packages, setup

ROOT = os.path.dirname(os.path.abspath(__file__))


def version():
    """Reads the version from mmseg_custom/version.py without importing the package."""
    with open(os.path.join(ROOT, 'mmseg_custom', 'version.py'), encoding='utf-8') as file:
        return re.search(r"^__version__ = '([^']+)'", file.read(), re.MULTILINE).group(1)


def mmcv_folder():
    """Returns mmcv's folder in site-packages, relative to the prefix that data files go to."""
    paths = sysconfig.get_paths()
    return os.path.join(os.path.relpath(paths['purelib'], paths['data']), 'mmcv')


class DataInEditableInstalls(Distribution):
    """Makes `pip install -e` install the data files too.

    setuptools 64 to at least 80 means to, but asks the distribution for `has_data`, which no
    class has: the method is called `has_data_files`. It can go when that is mended.
    """

    has_data = Distribution.has_data_files


setup(
    distclass=DataInEditableInstalls,
    name='mmseg_custom',
    version=version(),
    description='InternViT backbones, heads and recipes for MMSegmentation 0.30',
    license='Apache-2.0',
    python_requires='>=3.10,<3.13',
    packages=find_packages(include=['mmseg_custom', 'mmseg_custom.*']),
    package_data={
        'mmseg_custom.datasets.few_shot': ['*.json'],
        'mmseg_custom.engine.run_folder': ['templates/*'],
        'mmseg_custom.visualization.report': ['templates/*'],
        'mmseg_custom.visualization.web': ['*.html', '*.css', '*.js'],
    },
    # See mmseg_custom/compat/_ext.py. As a data file it lands in mmcv's own folder in editable
    # installs too, and leaves with `pip uninstall`. Its path holds the version of Python, hence
    # the tag: a wheel built for one version must not be installed for another.
    data_files=[(mmcv_folder(), ['mmseg_custom/compat/_ext.py'])],
    options={'bdist_wheel': {'python_tag': f'py{sys.version_info[0]}{sys.version_info[1]}'}},
    # Ranges, for environments that already have a PyTorch; the tested versions are in
    # requirements/runtime.txt. mmcv-full brings addict, yapf, Pillow, PyYAML and opencv-python;
    # mmsegmentation brings mmcls, matplotlib and prettytable.
    install_requires=[
        'torch>=2.6',
        'torchvision>=0.21',
        'timm>=1.0',
        'numpy>=1.24',
        'safetensors>=0.4',
        'mmcv-full==1.7.2',
        'mmsegmentation==0.30.0',
        'tensorboard',
        'tqdm',
        'jinja2>=3.0',
    ],
    extras_require={
        'test': ['pytest>=8', 'ruff', 'mypy', 'transformers>=4.52', 'scipy', 'torchao',
                 'peft>=0.21', 'axe-core-python', 'wandb>=0.20', 'mlflow-skinny>=3.0',
                 'sqlalchemy>=2.0', 'alembic>=1.10'],
        'low-memory': ['torchao'],  # optimizer=dict(type='LowMemoryAdamW')
        'lora': ['peft>=0.21'],  # model.backbone.adapt
        'masks': ['transformers>=4.52', 'scipy'],  # training a PlainMaskHead
        'frozen-vit': ['transformers>=5.0'],  # a FrozenViT by a folder of transformers
        # log_config.hooks: W&B, MLflow; the last two for MLflow in a file of SQLite
        'tracking': ['wandb>=0.20', 'mlflow-skinny>=3.0', 'sqlalchemy>=2.0', 'alembic>=1.10'],
        'web': ['gradio>=6.0,<7'],  # tools/demo_web.py
        'docs': ['mkdocs-material>=9.5', 'mkdocstrings-python>=2.0'],  # make docs
    },
)
