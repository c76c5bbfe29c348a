"""Checkpoint -> folder that :class:`mmseg_custom.deploy.Segmentor` loads without mmcv and mmseg.

- ``description``: config -> ``config.json``; ``test_pipeline``: its preprocessing
- ``weights``: state dict -> ``model.safetensors``
- ``figures``: results of tests -> figures with intervals; ``card``: ``README.md``, ``LICENSE.md``
- ``folder``: all of it, written whole or not at all
"""
from .folder import export_folder

__all__ = ['export_folder']
