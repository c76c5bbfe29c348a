"""Results of test runs -> one HTML page that needs nothing else."""
from .page import write_report

__all__ = ['write_report']
