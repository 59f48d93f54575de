"""What extends transformers: a T5 that carries adapters, and a trainer that knows them."""
