"""The first minutes on a GPU in one report: python -m benchmarks.gpu. Each section is a module with a function `run`."""
