"""Before torch is imported: threads that spin for long while they wait are many times slower beside any other busy process."""
import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if not os.path.exists("/dev/nvidia0"):
    os.environ.setdefault("TRITON_INTERPRET", "1")  # the GPU's kernels on CPU tensors; read when triton is imported
