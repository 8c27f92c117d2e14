#!/usr/bin/env bash
# Kills runs at random moments of saving and looks at what they leave: the
# newest save must load, with every checksum right, and train on.
#
#   tests/launch/kill_while_saving.sh [LORICA [TIMES [RANKS]]]
#
# TIMES kills, 200 by default, of runs on RANKS ranks, 2 by default, that save
# after each step of a tiny model. Prints a line of counts; exits 1 at the first
# save that is not whole.
set -u
cd "$(dirname "$0")/../.." || exit 1
lorica=${1:-build/release/lorica}
times=${2:-200}
ranks=${3:-2}
directory=$(mktemp -d)
job=
trap '[[ -n $job ]] && kill "$job" 2> /dev/null; rm -rf "$directory"' EXIT
trap 'exit 1' INT TERM
run=$directory/run
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export ASAN_OPTIONS=detect_leaks=0
mpi=(mpirun --oversubscribe --bind-to none -n "$ranks")
head -n 40 configs/data/train.jsonl > "$directory/train.jsonl"

train() { # more overrides
  local overrides=() set
  for set in "data.train=$directory/train.jsonl" "checkpoint.directory=$run" \
    "mesh.tensor=$ranks" "$@"; do
    overrides+=(--set "$set")
  done
  exec "${mpi[@]}" "$lorica" train --config tests/launch/kill_while_saving.textproto \
    "${overrides[@]}"
}

fail() {
  echo "kill_while_saving: $*"
  cat "$directory/out"
  exit 1
}

children() { cat /proc/"$1"/task/*/children 2> /dev/null; }

saves=0
cut=0
for ((i = 1; i <= times; ++i)); do
  before=$(cat "$run/latest" 2> /dev/null)
  (train) > "$directory/out" 2>&1 &
  job=$!
  # Until it has saved at least once more, then at a random moment.
  until [[ $(cat "$run/latest" 2> /dev/null) != "$before" ]]; do
    kill -0 "$job" 2> /dev/null || fail "run $i ended by itself"
    sleep 0.01
  done
  sleep "0.$(printf %03d $((RANDOM % 300)))"
  # All ranks at one instant, as when a host goes down.
  kill -9 $(children "$job") "$job" 2> /dev/null
  wait "$job" 2> /dev/null
  job=
  sleep 0.05
  compgen -G "$run/step_*.partial" > /dev/null && cut=$((cut + 1))
  newest=$(cat "$run/latest")
  step=$((10#${newest#step_}))
  # Loads every piece, verified, from exactly this save, trains a step on and
  # saves elsewhere.
  (train "checkpoint.resume=$run/$newest" "train.steps=$((step + 1))" \
    "checkpoint.directory=$directory/check") > "$directory/out" 2>&1 ||
    fail "the save $newest that run $i left is not whole"
  rm -rf "$directory/check"
  saves=$((saves + 1))
done
echo "kill_while_saving: $times runs killed, $cut of them within a save;" \
  "$saves newest saves whole, the last of step $step"
