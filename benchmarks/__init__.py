"""What Clearance costs: `python -m benchmarks [NAME ...] [--quick] [--json]`. Measures, and asserts nothing."""
