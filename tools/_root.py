"""Puts the root of the repository on the path, so that the tools run from a plain clone."""
import os.path as osp
import sys

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))
