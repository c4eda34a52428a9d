"""The losses in plain PyTorch, line by line as the papers' formulas read: slow and hungry, but easy to believe.

Same arguments, definitions and values as the functions of `segkd.methods`. Nothing here is used by segkd itself.
"""
