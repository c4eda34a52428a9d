"""The journal, and its replay into MLflow."""
