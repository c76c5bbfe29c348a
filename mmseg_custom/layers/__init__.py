"""Layers on torch and timm alone, one concept a file, so that any of them can be lifted out."""
