#!/usr/bin/env bash
# run.sh: everything that needs a GPU, on a machine that has one: builds with
# CUDA, runs the tests labelled gpu, then trains the quickstart's model and
# prints its speed.
set -euo pipefail
cd "$(dirname "$0")/../.."

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

if ! nvidia-smi --list-gpus; then
  echo "nvidia-smi shows no GPU here: nothing to run." >&2
  exit 77
fi
cmake --preset cuda
cmake --build --preset cuda
ctest --test-dir build/cuda --label-regex '^gpu$' --output-on-failure

bash launch/fetch_model.sh
gpus=$(nvidia-smi --list-gpus | wc -l)
for ranks in 1 "$gpus"; do
  echo "== quickstart on $ranks GPU(s)"
  mpirun -n "$ranks" --oversubscribe build/cuda/lorica train \
    --config configs/quickstart.textproto --set device=CUDA \
    --set mesh.tensor=1 --set "mesh.data=$ranks" \
    --set "train.global_batch=$((4 * ranks))" \
    --set "checkpoint.directory=runs/gpu_$ranks"
  tail -n 1 "runs/gpu_$ranks/metrics.jsonl"
  echo "== the same with passes as graphs"
  mpirun -n "$ranks" --oversubscribe build/cuda/lorica train \
    --config configs/quickstart.textproto --set device=CUDA \
    --set mesh.tensor=1 --set "mesh.data=$ranks" \
    --set "train.global_batch=$((4 * ranks))" --set pass_graphs=64 \
    --set "checkpoint.directory=runs/gpu_graphs_$ranks"
  tail -n 1 "runs/gpu_graphs_$ranks/metrics.jsonl"
  if [[ $gpus -eq 1 ]]; then break; fi
done
