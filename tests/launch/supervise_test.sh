#!/usr/bin/env bash
# What launch/supervise.sh starts, with jobs that only write down how they were
# started and end as told. Prints nothing and exits 0 if all is as it should be.
set -u
cd "$(dirname "$0")/../.." || exit 1
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
log=$directory/log
cat > "$directory/run.textproto" << 'END'
# mesh { data: 7 } is a comment.
model { path: "m" }
train { steps: 8 global_batch: 12  # Rows.
  micro_batch: 1 }
mesh {
  data: 3
  tensor: 2
}
END

# Stands for mpirun: the n-th start ends with the n-th code of $directory/codes.
cat > "$directory/mpirun" << 'END'
#!/usr/bin/env bash
here=$(dirname "$0")
echo "$*" >> "$here/log"
[[ $* == *--hostfile* ]] && cat "$here/alive_copy" 2> /dev/null
n=$(wc -l < "$here/log")
code=$(cut -d ' ' -f "$n" "$here/codes")
if [[ $code == wait ]]; then
  trap 'echo saved >> "$here/saved"; exit 0' USR1
  touch "$here/waiting"
  for _ in $(seq 200); do sleep 0.05; done
  exit 9
fi
exit "${code:-0}"
END
chmod +x "$directory/mpirun"

supervise() { # codes, options and command
  echo "$1" > "$directory/codes"
  shift
  rm -f "$log"
  bash launch/supervise.sh --pause 0 --mpirun "$directory/mpirun" "$@" \
    > "$directory/out" 2>&1
}
command=(-- lorica train --config "$directory/run.textproto")
expect() { # what, actual, expected
  [[ $2 == "$3" ]] && return
  echo "supervise_test: $1: \"$2\", not \"$3\""
  cat "$directory/out"
  exit 1
}
told="lorica train --config $directory/run.textproto --set mesh.data="

supervise "137 75 0" --ranks 6 "${command[@]}"
expect "a job that dies twice" "$?" 0
expect "its starts" "$(cat "$log")" "-n 6 ${told}3
-n 6 ${told}3
-n 6 ${told}3"

supervise "2 0" --ranks 6 "${command[@]}"
expect "a mistake of the user" "$? $(wc -l < "$log")" "2 1"

supervise "1 1 1 1" --restarts 2 --ranks 6 "${command[@]}"
expect "a job that always dies" "$? $(wc -l < "$log")" "1 3"

# Six ranks, then five, then three: 3, 2 and 1 replicas of two.
printf '%s\n' 6 5 3 > "$directory/available"
supervise "9 9 0" --available \
  "head -n 1 $directory/available; sed -i 1d $directory/available" "${command[@]}"
expect "ranks that go" "$? $(cut -d ' ' -f 2 "$log" | tr '\n' ' ')" "0 6 4 2 "
expect "their replicas" "$(grep -o '[0-9]*$' "$log" | tr '\n' ' ')" "3 2 1 "

supervise "0" --available "echo 1" "${command[@]}"
expect "too few ranks" "$?" 1
grep -q "1 ranks remain and mesh.tensor = 2" "$directory/out" ||
  expect "the reason" "$(cat "$directory/out")" "1 ranks remain"

# The batch of 8 rows does not divide by three replicas; --set counts.
supervise "0" --ranks 6 "${command[@]}" --set train.global_batch=8
expect "a batch" "$(cut -d ' ' -f 1,2 "$log")" "-n 4"

# No more replicas than the config has.
supervise "0" --ranks 8 "${command[@]}"
expect "ranks to spare" "$(cut -d ' ' -f 1,2 "$log")" "-n 6"

printf 'localhost slots=2\nnowhere slots=4 # Gone.\n' > "$directory/hosts"
supervise "0" --hostfile "$directory/hosts" --probe false "${command[@]}"
expect "hosts" "$? $(cut -d ' ' -f 1,2 "$log")" "0 -n 2"
grep -q "nowhere does not answer" "$directory/out" ||
  expect "the host" "$(cat "$directory/out")" "nowhere does not answer"

# A signal reaches the job as SIGUSR1, and ends the supervisor with it.
echo "wait 0" > "$directory/codes"
rm -f "$log"
bash launch/supervise.sh --mpirun "$directory/mpirun" --ranks 2 \
  "${command[@]}" > "$directory/out" 2>&1 &
supervisor=$!
until [[ -e $directory/waiting ]]; do sleep 0.02; done
kill -TERM "$supervisor"
wait "$supervisor"
expect "a stopped job" "$? $(cat "$directory/saved") $(wc -l < "$log")" \
  "0 saved 1"
