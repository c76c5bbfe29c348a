"""What an environment may lack: optional packages, and what an older PyTorch cannot do.

A test that fails with the words of such a lack is skipped, so that the suite can run on all
versions and with few packages. Where nothing is lacking, this does nothing.
"""
import re
from functools import cache
from importlib.util import find_spec

import pytest
import timm
import torch
from packaging.version import Version

from mmseg_custom.checkpoint.shard_reader import OLDEST_TORCH

DINOV3_IN_TIMM = Version('1.0.20')  # RADIO came before, and the other networks of the tests
OPTIONAL = ('transformers', 'scipy', 'torchao', 'peft', 'tensorboard', 'seaborn', 'gradio', 'onnx',
            'onnxscript', 'onnxruntime', 'huggingface_hub', 'wandb', 'mlflow')


def skip_if_unavailable(report: pytest.TestReport | pytest.CollectReport, path: str,
                        line: int) -> None:
    """Turns a failure into a skipped test if its words name what is not there."""
    if not report.failed:
        return
    words = ''.join([report.longreprtext, *(text for _, text in report.sections)])
    reason = next((reason for pattern, reason in lacking() if re.search(pattern, words)), None)
    if reason is not None:
        report.outcome = 'skipped'
        report.longrepr = (path, line, f'Skipped: {reason}')


@cache
def lacking() -> list[tuple[str, str]]:
    """Lists words of failures with the reason to skip, for what this environment lacks."""
    found = [(rf"No module named '{name}\b|\b{name}, which is not installed", f'no {name}')
             for name in OPTIONAL if find_spec(name) is None]
    if torch.__version__ < OLDEST_TORCH:
        found.append((rf'needs PyTorch {re.escape(OLDEST_TORCH)} or newer',
                      f'PyTorch {torch.__version__} is older than {OLDEST_TORCH}'))
    if Version(timm.__version__) < DINOV3_IN_TIMM:
        found.append((r'timm [\d.]+ has no such network|Unknown model \(',
                      f'timm {timm.__version__} lacks a network'))
    return found
