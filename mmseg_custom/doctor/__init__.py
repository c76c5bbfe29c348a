"""What tools/doctor.py looks at before a run: data, weights, environment, memory and time.

Each file gathers :class:`.findings.Finding`; ``examine`` runs them all, ``report`` prints them.
"""
