"""Installs `mmseg_custom`, and beside it a stand-in for mmcv's compiled ops."""

import os
import re

from setuptools import Distribution, find_packages, setup

from distutils.command.install_data import install_data  # isort: skip  (that of setuptools)

ROOT = os.path.dirname(os.path.abspath(__file__))


def version():
    """Reads the version from mmseg_custom/version.py without importing the package."""
    with open(os.path.join(ROOT, 'mmseg_custom', 'version.py'), encoding='utf-8') as file:
        return re.search(r"^__version__ = '([^']+)'", file.read(), re.MULTILINE).group(1)


def readme():
    """Reads what an index of packages shows."""
    with open(os.path.join(ROOT, 'README.md'), encoding='utf-8') as file:
        return file.read()


class DataInSitePackages(install_data):
    """Puts data files at the top of site-packages, in wheels and in editable installs."""

    def finalize_options(self):
        """Takes the folder of modules for that of data."""
        self.set_undefined_options('install', ('install_lib', 'install_dir'), ('root', 'root'),
                                   ('force', 'force'))


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
    long_description=readme(),
    long_description_content_type='text/markdown',
    license_expression='Apache-2.0',
    license_files=['LICENSE', 'NOTICE'],
    classifiers=[
        'Development Status :: 5 - Production/Stable',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    python_requires='>=3.10,<3.15',
    packages=find_packages(include=['mmseg_custom', 'mmseg_custom.*']),
    package_data={
        'mmseg_custom.datasets.few_shot': ['*.json'],
        'mmseg_custom.engine.run_folder': ['templates/*'],
        'mmseg_custom.visualization.report': ['templates/*'],
        'mmseg_custom.visualization.web': ['*.html', '*.css', '*.js'],
    },
    # See mmseg_custom/compat/mmcv_without_ops.py. As data files they are copied by editable
    # installs too, so that Python starts when the checkout is gone; `pip uninstall` removes them.
    data_files=[('', ['mmseg_custom/compat/mmcv_without_ops.py',
                      'mmseg_custom/compat/mmcv_without_ops.pth'])],
    cmdclass={'install_data': DataInSitePackages},
    # Ranges, for environments that already have a PyTorch; the tested versions are in
    # requirements/runtime.txt. mmcv-full brings addict, yapf, Pillow, PyYAML and opencv-python;
    # mmsegmentation brings mmcls, matplotlib and prettytable.
    install_requires=[
        'torch>=2.6',
        'torchvision>=0.21',
        'timm>=1.0',
        'numpy>=1.26',
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
        'onnx': ['onnx>=1.18', 'onnxscript>=0.4', 'onnxruntime>=1.21'],  # tools/export.py --onnx
        'hub': ['huggingface_hub>=0.30'],  # folders of the Hub: read, and --push-to-hub
        # log_config.hooks: W&B, MLflow; the last two for MLflow in a file of SQLite
        'tracking': ['wandb>=0.20', 'mlflow-skinny>=3.0', 'sqlalchemy>=2.0', 'alembic>=1.10'],
        'web': ['gradio>=6.0,<7'],  # tools/demo_web.py
        'docs': ['mkdocs-material>=9.5', 'mkdocstrings-python>=2.0'],  # make docs
    },
)
