#!/usr/bin/env bash
# auto_torchrun under the name that the original documents give it: bash tools/torchrun.sh -m vq.test NAME CONFIG ...
# PYTHON sets the interpreter, PROCESSES the number of processes.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m vq.auto_torchrun "$@"
