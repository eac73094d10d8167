"""Speed as ratios against a peer in the same session: `python -m benchmarks.speed [NAME ...]`."""
