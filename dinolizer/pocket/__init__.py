"""The embedded demonstration: photographs, generators, forgeries."""
