"""What our own runs say about choosing a source: the page docs/choosing-a-source.md and its figures."""
