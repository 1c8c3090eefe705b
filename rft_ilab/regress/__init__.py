"""The gate: is the target better, and is nothing else worse than its margin? Pure; no files, no model.

:func:`rft_ilab.regress.gate.judge` is the entry; :mod:`rft_ilab.regress.verdict` has its input and output.
"""
