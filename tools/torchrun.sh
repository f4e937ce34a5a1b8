#!/usr/bin/env bash
# Runs a program on all GPUs of this machine: bash tools/torchrun.sh -m vq.test NAME CONFIG ..., or ... tools/llamagen.py ...
# PROCESSES=2 bash tools/torchrun.sh ... sets the number of processes (needed on a CPU, where auto is one for each core).
set -e
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc-per-node="${PROCESSES:-auto}" "$@"
