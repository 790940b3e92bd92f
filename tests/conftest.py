"""Before torch is imported: threads that spin while they wait are many times slower beside any other busy process."""
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
