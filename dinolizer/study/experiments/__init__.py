"""One module per experiment of the notebooks."""
