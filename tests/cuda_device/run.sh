#!/usr/bin/env bash
# run.sh: everything that needs a GPU, on a machine that has one: builds with
# CUDA, runs the tests labelled gpu, takes a training step apart, then trains the
# quickstart's model and prints its speed. What it measures and the tests' log
# are kept in runs/gpu.
set -euo pipefail
cd "$(dirname "$0")/../.."

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

if ! nvidia-smi --list-gpus; then
  echo "nvidia-smi shows no GPU here: nothing to run." >&2
  exit 77
fi
bash launch/install.sh launch/packages.txt tests/packages.txt
bash launch/fetch_model.sh
source tests/support/cuda_headers.sh
kept=runs/gpu
rm -rf "$kept"
mkdir -p "$kept"
nvidia-smi > "$kept/machine.txt"
cmake --preset cuda
cmake --build --preset cuda --target lorica gpu_tests
failed=0  # The measurements are wanted all the same.
ctest --test-dir build/cuda --label-regex '^gpu$' --verbose \
  --output-log "$kept/tests.txt" || failed=$?

# quickstart RANKS NAME SETTING...: the arguments of a run in $kept/NAME.
quickstart() {
  local ranks=$1 name=$2
  shift 2
  arguments=(device=CUDA mesh.tensor=1 "mesh.data=$ranks"
    "train.global_batch=$((4 * ranks))" "checkpoint.directory=$kept/$name" "$@")
}

echo "== A step taken apart: each op waits for its end"
quickstart 1 step train.steps=12
build/cuda/tests/bench/step_bench configs/quickstart.textproto \
  "${arguments[@]}" | tee "$kept/step.md"

gpus=$(nvidia-smi --list-gpus | wc -l)
for ranks in 1 "$gpus"; do
  for graphs in 0 64; do
    echo "== quickstart on $ranks GPU(s), pass_graphs: $graphs"
    quickstart "$ranks" "on_${ranks}_graphs_$graphs" pass_graphs="$graphs"
    mpirun -n "$ranks" --oversubscribe build/cuda/lorica train \
      --config configs/quickstart.textproto "${arguments[@]/#/--set=}"
    grep tokens_per_second "$kept/on_${ranks}_graphs_$graphs/metrics.jsonl" |
      tail -n 3
  done
  if [[ $gpus -eq 1 ]]; then break; fi
done
exit "$failed"
