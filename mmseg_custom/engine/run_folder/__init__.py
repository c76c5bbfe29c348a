"""What a run leaves behind: a work dir that somebody understands who was not there.

- ``folder``: when the pages are written
- ``record``: ``run.json``, the starts of the run: when, where, how far, how they ended
- ``facts``: recipe, data and software of the run
- ``figures``: losses, metrics and classes, from the logs; ``classes.csv``
- ``listing``: what each file is; ``commands``: how to resume, test and export
- ``page``: all of these -> ``README.md``, by the templates
- ``tested``: the page of a test in a work dir of its own

    README.md    the run in words, tables and commands
    curves.png   loss, learning rate and metrics over the iterations
    classes.csv  figures of each class
    run.json     the starts of the run

They are written when the run starts, after evaluations and checkpoints, and when it ends, whole or
not at all. What cannot be written is a warning: no run ends because of its description.
"""
from .folder import RunFolder

__all__ = ['RunFolder']
