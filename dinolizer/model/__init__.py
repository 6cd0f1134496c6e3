"""The localizer: backbone, head, windows, and what trains them."""
