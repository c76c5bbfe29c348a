"""Model card of an exported segmentor in the form of the Hugging Face hub, and a note on licences.

The front matter is what the hub reads: https://huggingface.co/docs/hub/model-cards
"""
import os.path as osp
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from mmcv import Config
from torch import nn

from ...checkpoint.recorded import NetworkName
from ...datasets.nesting import innermost_options
from ...models.backbone_options import backbone_option
from ...version import __version__
from ..run_folder.facts import config_name
from ..run_folder.page import render
from .figures import Figures

PACKAGES = 'torch timm safetensors pillow'
OTHER = 'other'  # the hub's word for a licence that has a page of its own
TASK = 'image-segmentation'
# The hub's names of figures, and of data sets there.
METRICS = dict(mIoU='mean_iou', aAcc='accuracy', mAcc='mean_accuracy')


@dataclass(frozen=True)
class Origin:
    """Where an exported segmentor comes from.

    Attributes:
        cfg: Config of the checkpoint.
        checkpoint: Record of the checkpoint: ``path``, ``sha256``.
        backbone_file: Record of the file of a frozen backbone: ``path``, ``sha256``; None if the
            checkpoint holds all weights.
        figures: Figures of a test of the checkpoint, if there are any.
        license: The hub's identifier of the licence of the weights; 'other' if none was given.
    """
    cfg: Config
    checkpoint: Mapping[str, Any]
    backbone_file: Mapping[str, Any] | None
    figures: Figures | None
    license: str

    @property
    def name(self) -> str:
        """Name of the recipe: that of the config file, without its ending."""
        return config_name(self.cfg)

    @property
    def data(self) -> str:
        """Type of the training data, such as ADE20KDataset."""
        parts = innermost_options(self.cfg.data.get('train') or self.cfg.data.test)
        return ', '.join(dict.fromkeys(str(part['type']) for part in parts))

    @property
    def is_trained(self) -> bool:
        """Whether there is a checkpoint; else the weights are random."""
        return bool(self.checkpoint['sha256'])

    @property
    def first_weights(self) -> str:
        """Name of the file that the training of the backbone began with; '' if there is none."""
        path = self.backbone_file['path'] if self.backbone_file else backbone_option(
            self.cfg.model.backbone, 'pretrained')
        return osp.basename(str(path).rstrip('/')) if path else ''


def model_card(origin: Origin, model: nn.Module, config: Mapping[str, Any]) -> str:
    """Returns the text of ``README.md``.

    Args:
        origin: Where the segmentor comes from.
        model: Segmentor.
        config: Content of ``config.json``.
    """
    figures = origin.figures
    interval = figures.interval if figures else None
    means = [(name, value, _ends(figures.interval_of(name)))
             for name, value in figures.means.items()] if figures else []
    return render(
        'model_card.md', metadata=yaml.safe_dump(_metadata(origin), sort_keys=False),
        name=origin.name, classes=config['classes'],
        data=origin.data if origin.is_trained else None, packages=PACKAGES,
        network=str(NetworkName.of(model)), tested=_conditions(figures), means=means,
        level=f'{interval["level"]:.0%}' if interval else None, origin=_facts(origin, config))


def license_note(origin: Origin) -> str:
    """Returns the text of ``LICENSE.md``."""
    weights = (f'- weights that the training began with: {origin.first_weights}; where they were '
               'published, their licence is named\n' if origin.first_weights else '')
    given = ('The licence of these weights was not said when they were exported.'
             if origin.license == OTHER else
             f'Whoever exported these weights gives them under the licence {origin.license}.')
    return (
        '# Licences\n\n'
        f'{given} They depend on the work of others, whose terms hold as well:\n\n'
        f'{weights}'
        f'- training data: {origin.data}; some data sets allow research alone\n'
        f'- code: mmseg_custom {__version__}, Apache-2.0; no code is in this folder\n')


def _metadata(origin: Origin) -> dict[str, Any]:
    """Returns the front matter."""
    found: dict[str, Any] = dict(license=origin.license)
    if origin.license == OTHER:
        found.update(license_name='see-license-md', license_link='LICENSE.md')
    found.update(library_name='mmseg_custom', pipeline_tag=TASK,
                 tags=['semantic-segmentation', 'internvit'])
    if origin.is_trained:
        found['datasets'] = [_slug(each) for each in origin.data.split(', ')]
    figures = origin.figures
    if figures is None:
        return found
    metrics = []
    for name, value in figures.means.items():
        ends = figures.interval_of(name)
        metrics.append(dict(type=METRICS.get(name, name.lower()), name=name, value=value, **(
            dict(args=dict(interval=list(ends), level=figures.interval['level']))
            if ends and figures.interval else {})))
    test = innermost_options(origin.cfg.data.test)[0]
    return {**found, 'metrics': [metric['type'] for metric in metrics], 'model-index': [dict(
        name=origin.name, results=[dict(
            task=dict(type=TASK, name='Semantic segmentation'),
            dataset=dict(type=_slug(test['type']), name=str(test['type']).removesuffix('Dataset'),
                         split=osp.basename(figures.run['image_folder'])),
            metrics=metrics)])]}


def _facts(origin: Origin, config: Mapping[str, Any]) -> dict[str, str]:
    """Returns what the card says of the checkpoint and of how it is computed."""
    precision, windows = config['precision'], config['windows']
    found = {
        'Recipe': origin.name, 'Checkpoint': osp.basename(str(origin.checkpoint['path'])),
        'SHA-256 of the checkpoint': origin.checkpoint['sha256'],
        'Backbone weights': osp.basename(str(origin.backbone_file['path']))
        if origin.backbone_file else '',
        'SHA-256 of these': origin.backbone_file['sha256'] if origin.backbone_file else '',
        'Computes in': f'{precision["backbone"]} (backbone), {precision["heads"]} (head)',
        'Windows': 'the whole image' if windows['mode'] == 'whole' else (
            f'{windows["crop_size"][0]} x {windows["crop_size"][1]} pixels, every '
            f'{windows["stride"][0]} x {windows["stride"][1]}'),
        'Written by': config['written_by']}
    return {name: value for name, value in found.items() if value}


def _conditions(figures: Figures | None) -> str:
    """Returns what figures are of: images, folder and date of the test."""
    if figures is None:
        return ''
    run = figures.run
    return (f'{run["images"]:,} images of {osp.basename(run["image_folder"])} '
            f'({osp.basename(figures.path)}, {run["date"]})')


def _ends(interval: tuple[float, float] | None) -> str:
    return f'{100 * interval[0]:.2f} to {100 * interval[1]:.2f}' if interval else ''


def _slug(name: object) -> str:
    """Returns a name of a data set in the letters that the hub takes."""
    return str(name).removesuffix('Dataset').lower().replace('_', '-')
