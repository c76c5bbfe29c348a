"""Config and checkpoint -> folder of an exported segmentor: see :mod:`...deploy.config`."""
import json
import os
import os.path as osp
import shutil
from collections.abc import Mapping
from typing import Any

from mmcv import Config
from torch import nn

from ...checkpoint.checkpoint import Checkpoint, open_checkpoint
from ...checkpoint.convert import progress_of, refuse_existing
from ...checkpoint.export import write_safetensors
from ...checkpoint.integrity import finish_checks
from ...checkpoint.lazy import LazyStateDict
from ...checkpoint.load import check_fit
from ...checkpoint.provenance import sha256_of, weights_source_of
from ...choices import UNTRAINED
from ...datasets.nesting import innermost_options
from ...deploy.build import build_parts, set_precision
from ...deploy.config import (
    BACKBONE_FOLDER,
    CARD,
    CONFIG,
    LICENSE_NOTE,
    WEIGHTS,
    check_config,
)
from ...errors import InputError
from ...evaluation.run_info import describe_checkpoint
from ...files import atomic_folder, atomic_write
from ...logs import MAIN, quiet
from ...targets import try_target
from ..class_facts import configured_classes, recorded_classes
from ..test import load_model
from .card import OTHER, Origin, license_note, model_card
from .description import describe
from .figures import find_figures
from .weights import exported_weights


def export_folder(cfg: Config, checkpoint: str, target: str, *, backbone: str | None = None,
                  results: str | None = None, license: str = OTHER,
                  show_progress: bool = False) -> None:
    """Writes the folder of an exported segmentor.

    Weights take memory once at most: those that tests compute with as they are stored are views of
    their file.

    Args:
        cfg: Resolved config of the checkpoint.
        checkpoint: Checkpoint of a segmentor, or 'none' for the untrained network.
        target: Folder to write; must not exist.
        backbone: Backbone file, for a checkpoint without the backbone.
        results: The eval_*.json of a test of this checkpoint, or a work dir with some; default:
            those beside the checkpoint.
        license: The hub's identifier of the licence of the weights.
        show_progress: Whether to draw a progress bar on the terminal.

    Raises:
        InputError: If the target exists, the checkpoint does not fit, or something of it cannot be
            exported.
        SaveError: If the folder cannot be written.
    """
    target = target.rstrip('/')
    refuse_existing(target)
    test = innermost_options(cfg.data.test)[0]
    classes, palette = configured_classes(test, cfg.model.decode_head)
    opened = None if checkpoint == UNTRAINED else open_checkpoint(checkpoint)
    model = load_model(cfg, opened, 'cpu', len(classes), backbone)
    config = describe(cfg, model, *recorded_classes(
        opened.meta if opened else {}, classes, palette))
    check_config(config, cfg.filename or 'the config')
    weights = exported_weights(model)
    try_target(target, sum(tensor.nbytes for tensor in weights.values()), make_folder=False)
    finish_checks()
    scale = 'multi' if len(config['preprocessing']['views']) > 1 else 'single'
    origin = _origin(cfg, opened, model, scale, results, license)
    with atomic_folder(target) as part:
        _copy_upstream_config(cfg.model.backbone, config, part)
        _check_fit(config, weights, part)
        with progress_of(weights.values(), show_progress) as bar:
            write_safetensors(osp.join(part, WEIGHTS), weights, bar.update)
        for name, text in ((CONFIG, json.dumps(config, indent=2) + '\n'),
                           (CARD, model_card(origin, model, config)),
                           (LICENSE_NOTE, license_note(origin))):
            atomic_write(osp.join(part, name), text)


def _origin(cfg: Config, opened: Checkpoint | None, model: nn.Module, scale: str,
            results: str | None, license: str) -> Origin:
    """Returns where the segmentor comes from, with the hashes of its files.

    Raises:
        InputError: If the results are of another checkpoint, or cannot be read, or there is no
            checkpoint.
    """
    if opened is None:
        if results is not None:
            raise InputError(f'--results {results} with the untrained network: expected none')
        return Origin(cfg, dict(path='none: random weights', sha256=''), None, None, license)
    checkpoint = describe_checkpoint(opened.path)
    assert checkpoint is not None  # It was opened.
    source = None if opened.holds_backbone else weights_source_of(model.backbone)
    return Origin(cfg, checkpoint, None if source is None else dict(
        path=source.path, sha256=sha256_of(source.path)),
        find_figures(opened.path, checkpoint['sha256'], scale, results), license)


def _copy_upstream_config(backbone: Mapping[str, Any], config: Mapping[str, Any],
                          folder: str) -> None:
    """Copies config.json of a network of timm or transformers that the config names by a folder."""
    if config['backbone'].get('name') != BACKBONE_FOLDER:
        return
    os.mkdir(osp.join(folder, BACKBONE_FOLDER))
    shutil.copyfile(osp.join(backbone['name'], CONFIG), osp.join(folder, BACKBONE_FOLDER, CONFIG))


def _check_fit(config: Mapping[str, Any], weights: LazyStateDict, folder: str) -> None:
    """Builds the network as it will be loaded, and compares the weights with it.

    Raises:
        InputError: If it cannot be built, or they do not fit.
    """
    network = nn.Module()
    network.backbone, network.decode_head = build_parts(config, folder)
    with quiet(MAIN):  # which said it of the network that is exported
        set_precision(network, config, 'cpu')
    check_fit(weights, network.state_dict(), lambda name: False)
