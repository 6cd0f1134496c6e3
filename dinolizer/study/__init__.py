"""The study: metrics, baselines, evaluation, plots and results."""
