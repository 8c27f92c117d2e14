#!/bin/bash
# Trains on two hosts over TCP, and the same on one: the adapter must have the
# same bits.
#
#   training_on_hosts.sh LORICA
#
# Exits 77 where several_hosts.sh cannot make hosts.
set -u
lorica=$1
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.." || exit 1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

head -n 48 configs/data/train.jsonl > "$folder/train.jsonl"
cat > "$folder/run.textproto" << END
model { path: "tests/golden/tiny_text/model" dtype: F32 }
adapter { rank: 4 dropout: 0.1 target: "all-linear" }
data { train: "$folder/train.jsonl" sequence_length: 128 }
train { steps: 3 global_batch: 4 micro_batch: 1 }
mesh { data: 2 tensor: 2 timeout_seconds: 60 }
threads: 1
END
train() { # run, launcher...
  local run=$1
  shift
  timeout 120 "$@" "$lorica" train --config "$folder/run.textproto" \
    --set checkpoint.directory="$folder/$run" > "$folder/$run.log" 2>&1
  local code=$?
  cat "$folder/$run.log"
  [ $code = 0 ] || exit $code
}
train two "$here/several_hosts.sh" 2
train one mpirun -n 4 --oversubscribe --bind-to none

complain() {
  echo "training_on_hosts: $1"
  exit 1
}
grep -q "on 2 hosts" "$folder/two.log" || complain "these were not two hosts"
save=$(cat "$folder/one/latest")
cmp "$folder/one/$save/adapter_model.safetensors" \
  "$folder/two/$save/adapter_model.safetensors" ||
  complain "two hosts trained another adapter"
losses() { grep -o '"loss": *[^,]*' "$folder/$1/metrics.jsonl"; }
[ -n "$(losses one)" ] || complain "no losses"
[ "$(losses one)" = "$(losses two)" ] || complain "two hosts had other losses"
echo "training_on_hosts: the same bits"
