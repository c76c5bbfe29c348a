"""Trains a segmentor: runs tools/train.py from the root, where the published commands expect it."""
import os.path as osp
import runpy
import sys

tools = osp.join(osp.dirname(osp.abspath(__file__)), 'tools')
sys.path.insert(0, tools)
if __name__ == '__main__':
    runpy.run_path(osp.join(tools, 'train.py'), run_name='__main__')
