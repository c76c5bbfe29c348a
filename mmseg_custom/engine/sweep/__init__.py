"""Sweeps: one pass of a frozen backbone trains many heads, or runs follow each other.

- ``settings``: ``sweep=dict(...)`` of a config
- ``grid``: settings -> combinations, each with the config of a single run
- ``partly_trained``: LoRA and last blocks: what such a sweep varies, and what its runs share
- ``separate_runs``: trains its combinations one after another, each as a run of its own
- ``backbone``: the frozen part that all heads share; it computes its feature maps once
- ``probe``: one head, with its own model, optimizer, runner, log and checkpoints
- ``rounds``: which heads are trained together, and from which iteration
- ``head_trainer``: trains the heads of a round together, iteration by iteration
- ``train``: builds the backbone, trains the rounds and reports
- ``finished``: what of a sweep is done already
- ``folder``: the page that describes a sweep
- ``records``: the records in the folders of a sweep and its heads
- ``report``: table, plot and JSON

A head is trained exactly as in a run of its own: with the same runner, hooks, random numbers and
arithmetic. The resulting work dir:

    README.md                      the sweep in words, with a table of its heads
    sweep.json  sweep.png          results; the table is in the log
    linear_l47_lr4e-05_wd0/        like the work dir of a single run, and also
      config.py                    config for tools/test.py and tools/train.py
      evaluations.json             iteration -> mIoU, mAcc, aAcc
      result.json                  outcome, once the head is finished or was stopped
"""
from .grid import combinations
from .train import sweep

__all__ = ['combinations', 'sweep']
