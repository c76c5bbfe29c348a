"""Results of test runs -> HTML pages: on one run, on two that are compared, on many."""
from .leaderboard import write_leaderboard
from .page import write_report

__all__ = ['write_leaderboard', 'write_report']
