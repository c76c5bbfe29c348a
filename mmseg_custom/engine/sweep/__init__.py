"""Sweeps: one pass of a frozen backbone trains many heads.

- ``settings``: ``sweep=dict(...)`` of a config
- ``grid``: settings -> combinations, each with the config of a run of its own
- ``backbone``: the frozen part that all heads share; it computes its feature maps once
- ``probe``: one head: model, optimizer, runner, log and checkpoints of a run of its own
- ``rounds``: which heads are trained together, and from which iteration on
- ``train``: the heads of a round, in step with each other
- ``records``: what is recorded in the folders of a sweep and its heads
- ``report``: table, plot and JSON

A head goes through what it would go through in a run of its own: the same runner, hooks, draws and
arithmetic. A work dir afterwards:

    sweep.json  sweep.png          the results; the table is in the log
    linear_l47_lr4e-05_wd0/        as the work dir of a run of its own, and
      config.py                    with which tools/test.py and tools/train.py take the checkpoints
      evaluations.json             iteration -> mIoU, mAcc, aAcc
      result.json                  once it is finished, or was stopped
"""
from .grid import combinations
from .train import sweep

__all__ = ['combinations', 'sweep']
