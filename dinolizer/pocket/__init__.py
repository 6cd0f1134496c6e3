"""The embedded demonstration: photographs, generators, forgeries, pre-training."""
