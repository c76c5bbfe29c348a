"""What tools/doctor.py checks before a run: data, weights, environment, memory and time.

Each file returns :class:`.findings.Finding`; ``checks.run_checks`` runs them all, ``report`` prints
them.
"""
