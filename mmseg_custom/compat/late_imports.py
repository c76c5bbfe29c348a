"""Lets mmcv and mmseg import other libraries only when they use them.

mmcv 1.7 imports torchvision for the addresses of its models, and with it torch._dynamo. mmseg 0.30
imports pyplot for one function, and scipy for another. Can go with OpenMMLab 1.x.
"""
import importlib
import logging

from ..late_imports import import_timm_layers, standing_in

CUDA_LOGGER = 'torch.utils.cpp_extension'


def import_runner() -> None:
    """Imports mmcv's runner without torchvision, and lets timm's layers come one by one."""
    # PyTorch warns of a compiler without a GPU, at each start; nothing is compiled then.
    logging.getLogger(CUDA_LOGGER).addFilter(
        lambda record: not record.getMessage().startswith('No CUDA runtime is found'))
    import_timm_layers()  # before a backbone of mmseg imports all of timm
    with standing_in('torchvision'):
        importlib.import_module('mmcv.runner.checkpoint')


def import_inference() -> None:
    """Imports mmseg's functions for inference, and its models, without pyplot and scipy."""
    with (standing_in('matplotlib', 'matplotlib.pyplot'),
          standing_in('scipy', 'scipy.interpolate', closed=True)):
        importlib.import_module('mmseg.apis.inference')
