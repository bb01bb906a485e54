"""The only room that imports transformers: load a model, attach adapters, measure losses and statistics, generate."""
