"""The study: metrics, baselines, evaluation, figures and results."""
