"""What the losses cost: measured against plain implementations of the papers' formulas. Not part of the package."""
