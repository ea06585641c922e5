"""MSR: learn which symmetry to keep."""
