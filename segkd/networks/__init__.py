"""Backbones, heads, pretrained weights."""
