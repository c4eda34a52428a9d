"""Data sets: catalogue, download, preparation, augmentation, resumable order."""
