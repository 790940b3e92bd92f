"""SAEs that others have trained, measured on the held-out tokens of a sweep: points of its chart (docs/imported.md)."""
