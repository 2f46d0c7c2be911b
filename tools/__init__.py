"""What makes and proves the series: `python -m tools.outputs 02`. `chapters` is the one reader of the notebooks."""
