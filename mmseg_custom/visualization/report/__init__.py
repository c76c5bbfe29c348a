"""Results of test runs -> HTML pages: on one run, on two that are compared, on many."""
from .leaderboard import write_leaderboard
from .page import write_report
from .tested_runs import is_sweep

__all__ = ['is_sweep', 'write_leaderboard', 'write_report']
