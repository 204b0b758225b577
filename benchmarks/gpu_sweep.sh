#!/usr/bin/env bash
# Runs a sweep on a GPU machine that may be without network, several jobs at once on one card (NVIDIA's MPS shares it).
#   benchmarks/gpu_sweep.sh SPEC OUT WHEELS DATASETS [PROCESSES]
# SPEC: a file of configs/compare/. OUT: folder for the results; the same call continues what is there. WHEELS: folder of
# wheels that the machine's Python lacks (anomalib and its needs), installed to a folder of its own. DATASETS: folder with
# the data sets as the spec names them below ./datasets.
set -euo pipefail
spec=$1 out=$2 wheels=$3 datasets=$4 processes=${5:-16}
cd "$(dirname "$0")/.."
site=${SITE:-/tmp/anomalib_lamp_site}
[ -d "$site" ] || python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl
export PYTHONPATH=$site:$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONWARNINGS=ignore
[ -e datasets ] || ln -s "$datasets" datasets
if command -v nvidia-cuda-mps-control > /dev/null; then nvidia-cuda-mps-control -d 2> /dev/null || true; fi
python3 -m anomalib_lamp compare "$spec" --out "$out" --processes "$processes"
