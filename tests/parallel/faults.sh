#!/bin/bash
# What survivors do when a rank is stopped, killed or cut off.
#
#   faults.sh stop|kill|cut PROGRAM      PROGRAM: collective_loop
#   faults.sh stop PROGRAM messages      where ranks only send, or meet
#
# Prints what a user would see. Exits 0 if the job ended in time and the ranks
# that should say why did, 77 where the fault cannot be made.
set -u
fault=$1
program=$2
work=${3:-}
here=$(dirname "$0")
timeout=3     # Of the watchdog.
limit=40      # The whole job, its start on a busy machine included.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
output=$(mktemp)
trap 'rm -f "$output"' EXIT

case $fault in
  cut) CUT_AFTER=6 timeout $limit "$here/several_hosts.sh" 1 \
    "$program" $timeout > "$output" 2>&1 & ;;
  *) timeout $limit mpirun -n 3 --oversubscribe --bind-to none \
    "$program" $timeout $work > "$output" 2>&1 & ;;
esac
job=$!

if [ "$fault" != cut ]; then
  for _ in $(seq 300); do
    grep -q running "$output" && break
    sleep 0.1
  done
  victim=$(sed -n 's/^rank 1 is process //p' "$output")
  kill "-${fault^^}" "$victim" || exit 1
fi
wait $job
code=$?
cat "$output"

complain() {
  echo "faults: $1"
  exit 1
}
[ $code = 77 ] && exit 77
[ $code = 124 ] && complain "the job hung"
[ $code = 0 ] && complain "the job ended as if nothing had happened"
call="all-reduce sum [0-9]+ \(adapter gradient, 400000 bytes"
[ "$work" = messages ] &&
  call="(broadcast|barrier) [0-9]+ \(control, [0-9]+ bytes"
says() { # rank, what
  grep -Eq "lorica: rank $1 waited [0-9.]+m?s in $call, $2" \
    "$output" || complain "rank $1 did not say what it waited for"
}
case $fault in
  stop)
    says 0 "group of ranks 0 1 2\) for rank 1;"
    # Of the meeting, rank 2 may miss rank 0 as well, which waits in the other
    # call.
    says 2 "group of ranks 0 1 2\) for rank (0 )?1;"
    for _ in $(seq 50); do # Gone, or dead and not yet buried.
      grep -Eq '^State:[[:space:]]*[^Z]' "/proc/$victim/status" 2> /dev/null ||
        break
      sleep 0.1
    done
    grep -Eq '^State:[[:space:]]*[^Z]' "/proc/$victim/status" 2> /dev/null &&
      complain "the stopped rank is still there"
    ;;
  kill)
    grep -q "signal 9" "$output" || complain "nobody named the signal"
    # mpirun leaves the survivors a second.
    says 0 "group of ranks 0 1 2\) for rank 1; this process was told to end"
    says 2 "group of ranks 0 1 2\) for rank 1; this process was told to end"
    ;;
  cut)
    # The other host's last line went into the cut.
    says 0 "group of ranks 0 1\) for rank 1;"
    grep -q "lost communication with a remote daemon" "$output" ||
      complain "mpirun did not name the host that is gone"
    ;;
esac
exit 0
