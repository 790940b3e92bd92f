"""To be imported before torch and numpy, which read it then: their threads do not spin for long while they wait.

Those that do are 7 times slower beside one other busy process, and keep each other's library from its cores.
"""
import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # torch's
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # numpy's
