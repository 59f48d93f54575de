"""Models of transformers, by subclassing."""
