#!/usr/bin/env bash
# Trains until the run is done: when a job dies, starts it again from its last
# save, on the ranks that remain.
#
#   launch/supervise.sh [options] --ranks N -- [lorica] train --config FILE ...
#   launch/supervise.sh [options] --hostfile FILE -- build/release/lorica train ...
#
#   --ranks N          ranks to start
#   --hostfile FILE    hosts instead, a line each: "name slots=4"; before each
#                      start those that do not answer are left out
#   --probe COMMAND    how a host is asked, its name appended; default:
#                      ssh -o BatchMode=yes -o ConnectTimeout=5
#                      (followed by "HOST true")
#   --available CMD    prints how many ranks can be started now, instead
#   --restarts N       how often to start again, 10 by default
#   --pause SECONDS    before each new start, 5 by default
#   --mpirun COMMAND   "mpirun" with any options of your own
#
# mesh.tensor stays as the config has it. Where ranks are missing, mesh.data is
# the largest number of replicas that they fill and that divides the global
# batch; with fewer ranks than mesh.tensor there is nothing to start. What the
# user got wrong (exit code 2) is not tried again. SIGTERM, SIGINT and SIGUSR1
# are passed on to the job, which saves and ends; then this ends too.
#
# Exits with the code of the last job; 1 where no job can be started.
set -uo pipefail

ranks=0 hostfile= available= restarts=10 pause=5 mpirun=mpirun
probe="ssh -o BatchMode=yes -o ConnectTimeout=5"
fail() { echo "supervise: $*" >&2; exit 1; }
while [[ $# -gt 0 && $1 != -- ]]; do
  case $1 in
    --ranks) ranks=$2 ;;
    --hostfile) hostfile=$2 ;;
    --probe) probe=$2 ;;
    --available) available=$2 ;;
    --restarts) restarts=$2 ;;
    --pause) pause=$2 ;;
    --mpirun) mpirun=$2 ;;
    *) fail "unknown option $1; the head of $0 explains all" ;;
  esac
  shift 2 || fail "an option without value"
done
[[ ${1:-} == -- ]] && shift
[[ $# -gt 0 ]] || fail "no command after --; the head of $0 explains all"
[[ -n $hostfile || -n $available || $ranks -gt 0 ]] ||
  fail "how many ranks? give --ranks, --hostfile or --available"
command=("$@")

alive=$(mktemp)
trap 'rm -f "$alive"' EXIT

answers() {
  case $1 in localhost | "$(hostname)" | 127.*) return 0 ;; esac
  $probe "$1" true < /dev/null > /dev/null 2>&1
}

# The ranks that can be started now; $alive lists their hosts.
count_ranks() {
  if [[ -n $available ]]; then
    bash -c "$available"
  elif [[ -n $hostfile ]]; then
    local total=0 line host slots
    : > "$alive"
    while read -r line; do
      line=${line%%#*}
      read -r host _ <<< "$line"
      [[ -z $host ]] && continue
      slots=1
      [[ $line =~ slots=([0-9]+) ]] && slots=${BASH_REMATCH[1]}
      if answers "$host"; then
        echo "$host slots=$slots" >> "$alive"
        total=$((total + slots))
      else
        echo "supervise: $host does not answer" >&2
      fi
    done < "$hostfile"
    echo "$total"
  else
    echo "$ranks"
  fi
}

# A field as --set or the config file has it.
config=
for ((i = 0; i < ${#command[@]}; ++i)); do
  case ${command[i]} in
    --config) config=${command[i + 1]:-} ;;
    --config=*) config=${command[i]#*=} ;;
  esac
done
[[ -r $config ]] || fail "cannot read the config \"$config\""
field() { # group, name, default
  local value i word
  value=$(sed 's/#.*//' "$config" | tr '\n' ' ' | sed -nE \
    "s/.*(^|[ }])$1[[:space:]]*:?[[:space:]]*\{([^}]*[[:space:]])?$2[[:space:]]*:[[:space:]]*\"?([^\" }]*).*/\3/p")
  for ((i = 0; i < ${#command[@]}; ++i)); do
    word=${command[i]}
    [[ $word == --set ]] && word=--set=${command[i + 1]:-}
    [[ $word == --set=$1.$2=* ]] && value=${word#--set="$1"."$2"=}
  done
  echo "${value:-$3}"
}
tensor=$(field mesh tensor 1)
data=$(field mesh data 1)
global_batch=$(field train global_batch 16)
micro_batch=$(field train micro_batch 4)

# The most replicas that so many ranks allow; 0: none.
replicas_on() {
  local d
  for ((d = $1 / tensor; d > 0; --d)); do
    ((d <= data && global_batch % (micro_batch * d) == 0)) && break
  done
  echo "$d"
}

job= asked=
pass_on() {
  asked=$1
  [[ -n $job ]] && kill "-$1" "$job" 2> /dev/null
}
# mpirun passes SIGUSR1 on to its ranks; at SIGTERM or SIGINT it kills them
# before they have saved.
trap 'pass_on USR1' TERM INT USR1

code=1
for ((start = 0; start <= restarts; ++start)); do
  now=$(count_ranks)
  [[ $now =~ ^[0-9]+$ ]] || fail "the number of ranks is \"$now\""
  replicas=$(replicas_on "$now")
  if ((replicas == 0)); then
    fail "$now ranks remain and mesh.tensor = $tensor needs as many"
  fi
  launch=($mpirun -n $((replicas * tensor)))
  [[ -n $hostfile ]] && launch+=(--hostfile "$alive")
  echo "supervise: start $((start + 1)) of at most $((restarts + 1)):" \
    "mesh.data = $replicas, mesh.tensor = $tensor" >&2
  "${launch[@]}" "${command[@]}" --set "mesh.data=$replicas" &
  job=$!
  wait "$job"
  code=$?
  # A signal that was passed on interrupts the wait, not the job.
  while kill -0 "$job" 2> /dev/null; do
    wait "$job"
    code=$?
  done
  job=
  [[ $code == 0 || $code == 2 || -n $asked ]] && exit "$code"
  echo "supervise: the job ended with code $code" >&2
  ((start < restarts)) && sleep "$pause"
done
echo "supervise: given up after $((restarts + 1)) starts" >&2
exit "$code"
