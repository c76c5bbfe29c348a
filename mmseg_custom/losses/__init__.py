"""Losses on torch alone."""
from .upsampled import upsampled_cross_entropy

__all__ = ['upsampled_cross_entropy']
