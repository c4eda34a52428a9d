"""What a training process imports and looks up, once, before the processes of `forks` are forked from this one."""

from __future__ import annotations

import torch._dynamo  # noqa: F401 -- torch's optimisers import it when they are first built, for seconds

import segkd.evaluation.quick
import segkd.steps
import segkd.training.pretrain  # noqa: F401
from segkd.config.fingerprint import code_fingerprint
from segkd.methods.registry import available

for method in available():
    code_fingerprint("student", method)
code_fingerprint("teacher")
