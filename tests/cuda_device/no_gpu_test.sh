#!/usr/bin/env bash
# no_gpu_test.sh LORICA: the program, linked with the real libraries, where they
# see no GPU: device CUDA is an error before any work on one rank and on two,
# in the words of the real runtime; AUTO trains on the CPU.
set -u
lorica=$1
cd "$(dirname "$0")/../.." || exit 1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export CUDA_VISIBLE_DEVICES=""

head -n 48 configs/data/train.jsonl > "$folder/train.jsonl"
cat > "$folder/run.textproto" << END
model { path: "tests/golden/tiny_text/model" dtype: F32 }
data { train: "$folder/train.jsonl" sequence_length: 128 }
train { steps: 2 global_batch: 4 micro_batch: 2 }
checkpoint { directory: "$folder/run" every_steps: 0 }
threads: 1
END

complain() {
  echo "$1"
  cat "$folder/log"
  exit 1
}

# expect CODE PATTERN SETTING...: trains on as many ranks as $ranks.
expect() {
  local code=$1 pattern=$2
  shift 2
  timeout 50 mpirun -n "$ranks" --oversubscribe --bind-to none "$lorica" train \
    --config "$folder/run.textproto" "${@/#/--set=}" > "$folder/log" 2>&1
  local ended=$?
  [[ $ended -eq $code ]] || complain "ends with $ended, not $code:"
  grep -q "$pattern" "$folder/log" || complain "does not say $pattern:"
}

# Without a driver, or with one and without a GPU.
refusal='device is CUDA, but .*\(the CUDA driver: cudaError\|shows no GPU\)'
ranks=1 expect 2 "$refusal" device=CUDA
ranks=2 expect 2 "$refusal" device=CUDA mesh.data=2
[[ ! -e $folder/run ]] || complain "leaves a run behind:"
ranks=1 expect 0 '^step 2/2' device=AUTO
