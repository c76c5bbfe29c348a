"""Layers on torch and timm alone, one concept a file, so that any of them can be lifted out."""
from ..late_imports import import_timm_layers

import_timm_layers()
