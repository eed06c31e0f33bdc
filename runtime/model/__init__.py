"""What a model promises, where that is written, and the models in the package."""
