"""Provisional."""
from mmseg.datasets import build_dataset

from .loading import accelerate


def build_train_dataset(options):
    return accelerate(build_dataset(options))


def build_test_dataset(options):
    return build_dataset(options, dict(test_mode=True))
