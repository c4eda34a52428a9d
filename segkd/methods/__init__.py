"""Distillation methods, one file per paper; `available()` lists them, `register` adds one."""
