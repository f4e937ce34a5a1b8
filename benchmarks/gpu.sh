#!/usr/bin/env bash
# Measures this project on one GPU: `bash benchmarks/gpu.sh [--out DIR] [SECTION...]`; --help lists the sections.
# PYTHON chooses the interpreter. Started again with the same DIR, it goes on where it was stopped.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" -m benchmarks.gpu.run "$@"
