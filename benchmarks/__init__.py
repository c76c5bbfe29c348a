"""One front for all benchmarks: `python -m benchmarks`; CONTRIBUTING.md says how to add one.

A benchmark is a file of cases/. Each measures ours, a reference and, where there is one, the limit
in one run, in turns, and its rows go to a table and to a JSON file (results.py).
"""
