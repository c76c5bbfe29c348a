"""Predictions -> records of images -> metrics, their interval, and the files of a test run."""
from .metrics import evaluate, pre_eval
from .results import read_results, write_results

__all__ = ['evaluate', 'pre_eval', 'read_results', 'write_results']
