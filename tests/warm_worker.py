"""A worker of pytest-xdist as a fork that has imported the libraries: execnet has Python run the code that it gives last."""
import os
import sys

if __name__ == "__main__":
    sys.executable = os.environ["WARM_PYTHON"]  # for what its tests start
    exec(sys.argv[-1])
