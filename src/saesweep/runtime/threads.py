"""Imported before torch and numpy, which read these variables: their threads spin only briefly while they wait.

Threads that spin are 7 times slower beside one other busy process, and keep the cores from the other library.
"""
import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # torch's
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # numpy's
