"""Puts the root of the repository on the path, so that the tools run from a plain clone."""
import os.path as osp
import sys
import warnings

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))

# mmcv 1.7 advertises its version 2, in four lines at every start.
warnings.filterwarnings('ignore', 'On January 1, 2023, MMCV', UserWarning)

sys.path.insert(0, ROOT)
