#!/usr/bin/env bash
# From a plain Debian machine to a trained adapter with one command, minutes on
# two cores: installs what is missing, builds, fetches a small language model,
# trains an adapter for it with two MPI ranks and shows what it learned. A
# second run reuses all but the training. Arguments go to `lorica train`.
set -euo pipefail
cd "$(dirname "$0")/.."

config=configs/quickstart.textproto
model=models/SmolLM2-135M-Instruct.gguf
run=runs/quickstart
held_out=configs/data/valid.jsonl
lorica=build/release/lorica

# OpenMPI refuses to start as root unless told twice, and to start more ranks
# than physical cores, of which a small machine may have one.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpi=(mpirun --oversubscribe --bind-to none -n 2)

bash launch/install.sh launch/packages.txt
echo "Building $lorica"
mkdir -p build
cmake --workflow --preset release > build/release.log 2>&1 ||
  { tail -n 40 build/release.log >&2; exit 1; }
bash launch/fetch_model.sh

"${mpi[@]}" "$lorica" train --config "$config" \
  --set checkpoint.resume=NEVER "$@"
adapter=$run/$(< "$run/latest")

# The first held-out record, field by field.
field() {
  python3 -c 'import json, sys
with open(sys.argv[1]) as records: print(json.loads(next(records))[sys.argv[2]])
' "$held_out" "$1"
}
prompt=$(field prompt)
generate() {
  "${mpi[@]}" "$lorica" generate --model "$model" --prompt "$prompt" \
    --max_tokens 24 "$@"
}
by_base=$(generate)
by_adapted=$(generate --adapter "$adapter")

# Validation losses, first and last, from the lines that have them.
losses=$(python3 -c 'import json, sys
with open(sys.argv[1]) as lines: values = [json.loads(line) for line in lines]
losses = [v["valid_loss"] for v in values if "valid_loss" in v]
print(f"{losses[0]:.4f} before training, {losses[-1]:.4f} after")
' "$run/metrics.jsonl")

cat << END

A record the training did not see, and the first line of how it ends:

$prompt
  by its author       $(field completion)
  by the base model   ${by_base%%$'\n'*}
  by the adapted one  ${by_adapted%%$'\n'*}

Validation loss:  $losses
Adapter:          $(stat --format=%s "$adapter/adapter_model.safetensors") bytes
PEFT directory:   $adapter
END
