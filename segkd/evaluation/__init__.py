"""Scores from one integer confusion matrix, boundary and calibration, cost."""
