"""Exported segmentors, which run without mmcv and mmseg: torch, timm, safetensors and Pillow.

- ``segmentor``: images -> label maps; ``images``, ``resize``, ``preprocessing``: their first steps
- ``config``: the form of the folder; ``build``: folder -> network
- ``graphs``: the network as ONNX or machine code beside its weights; ``runtimes`` run it
- ``hub``: folders on the Hugging Face hub

``tools/export.py`` writes such a folder from a checkpoint (:mod:`mmseg_custom.engine.export`).
"""
from .hub import push_to_hub
from .segmentor import Segmentor

__all__ = ['Segmentor', 'push_to_hub']
