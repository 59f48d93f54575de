"""What extends transformers: a T5 with adapters, and mixins for trainers of adapters."""
