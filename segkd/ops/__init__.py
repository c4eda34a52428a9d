"""Exact, memory-lean kernels on tensors; no knowledge of papers."""
