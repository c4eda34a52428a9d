#!/bin/sh
# the project and its pinned versions, from its own files; torch first, so that it is the pinned build
set -e
python -m pip install --constraint constraints.txt torch
python -m pip install --constraint constraints.txt --editable ".[workflow]"
