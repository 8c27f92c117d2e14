#!/bin/bash
# Stops or kills a rank of a training run: what the other says, and how soon.
#
#   stopped_training.sh stop|kill LORICA
set -u
fault=$1
lorica=$2
cd "$(dirname "$0")/../.." || exit 1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

head -n 48 configs/data/train.jsonl > "$folder/train.jsonl"
cat > "$folder/run.textproto" << END
model { path: "tests/golden/tiny_text/model" dtype: F32 }
data { train: "$folder/train.jsonl" sequence_length: 128 }
train { steps: 1000000 global_batch: 4 micro_batch: 2 }
mesh { data: 1 tensor: 2 timeout_seconds: 3 }
checkpoint { directory: "$folder/run" every_steps: 0 }
threads: 1
END
log=$folder/log
timeout 100 mpirun -n 2 --oversubscribe --bind-to none "$lorica" train \
  --config "$folder/run.textproto" > "$log" 2>&1 &
job=$!
for _ in $(seq 600); do
  grep -q "^step 2/" "$log" && break
  sleep 0.1
done
victim=$(pgrep -f "train --config $folder/run.textproto" | while read -r pid; do
  grep -qz '^OMPI_COMM_WORLD_RANK=1$' "/proc/$pid/environ" && echo "$pid"
done)
start=$SECONDS
kill "-${fault^^}" "$victim" || exit 1
wait $job
code=$?
head -n 4 "$log"
echo "..."
tail -n 12 "$log"
complain() {
  echo "stopped_training: $1"
  exit 1
}
[ $code = 124 ] && complain "the job hung"
[ $code = 0 ] && complain "the job ended as if nothing had happened"
grep -Eq "lorica: rank 0 waited [0-9.]+m?s in [a-z -]+ [0-9]+ \(.*group of ranks 0 1\) for rank 1;" \
  "$log" || complain "rank 0 did not say what it waited for"
[ $((SECONDS - start)) -le 30 ] || complain "it took $((SECONDS - start)) s"
echo "stopped_training: ended after $((SECONDS - start)) s"
