"""What the bridge costs beside others who do the same: ``python -m benchmarks``."""
