#!/bin/bash
# mutations.sh BUILD [PATTERN]: takes each barrier out of the CUDA kernels, one
# at a time, and requires that a test of the kernels notices. BUILD is a build
# directory in which the target runtime_cuda_kernel_races is built; PATTERN
# limits the files. A barrier of a header is taken out of all kernels at once, and
# the tests of each entry that it serves have to notice by themselves. Sources
# are left alone: changed copies go first on the include path. Ends with 1 if the
# tests miss one.
set -euo pipefail
build=$(cd "$1" && pwd)
pattern=${2:-.}
root=$(cd "$(dirname "$0")/../../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
binary=tests/runtime/cuda/runtime_cuda_kernel_races
objects=tests/support/cuda_sim/CMakeFiles/lorica_cuda_sim_checked_kernels.dir

# The object of a source that the tests are linked with.
object_of() {
  ninja -C "$build" -t query "$binary" | grep -o "$objects.*/$1.o" | head -1
}

# The entries whose tests see a file; of a header each does.
entries_of() {
  case $1 in
    */attention/forward.cu) echo attention ;;
    */attention/backward.cu) echo attention_backward ;;
    */attention/* | */tiles.cuh) echo attention attention_backward ;;
    */reduce.cuh) echo squared_norm {rms,layer}_norm{,_backward} logit_stats ;;
    */thin_products.cu) echo matmul ;;
    *) echo "no entry is known to see $1" >&2; exit 1 ;;
  esac
}

# The kernel sources that a file is part of, as the compiler found them.
sources_of() {
  local source
  if [[ $1 == *.cu ]]; then
    echo "$1"
    return
  fi
  for source in $(cd "$root" && ls runtime/cuda/*.cu runtime/cuda/attention/*.cu); do
    if ninja -C "$build" -t deps "$(object_of "$source")" | grep "/$1$" > /dev/null; then
      echo "$source"
    fi
  done
}

# Compiles the sources with the changed copy in front and links the binary.
build_mutant() {
  local file=$1 link object command source
  link=$(ninja -C "$build" -t commands "$binary" | tail -1)
  link=${link% && cd *}
  for source in $(sources_of "$file"); do
    object=$(object_of "$source")
    command=$(ninja -C "$build" -t commands "$object" | tail -1)
    command=${command/-I/-I$scratch -I}
    command=${command/$root\/$source/$( [[ $file == "$source" ]] && echo "$scratch" || echo "$root")\/$source}
    (cd "$build" && eval "${command//"$object"/"$scratch/$(basename "$source").o"}")
    link=${link//"$object"/"$scratch/$(basename "$source").o"}
  done
  (cd "$build" && eval "${link//"-o $binary"/"-o $scratch/mutant"}")
}

# Whether the mutant fails the tests of some entry of a source, of all entries of
# a header. Says of a header which entry does not see it.
is_noticed() {
  local entry entries
  entries=$(entries_of "$1")
  for entry in $entries; do
    if ! "$scratch/mutant" --gtest_break_on_failure \
        --gtest_filter="*/$entry" > "$scratch/log" 2>&1; then
      [[ $1 == *.cu ]] && return 0
    elif [[ $1 != *.cu ]]; then
      echo "passes without: $entry"
      return 1
    fi
  done
  [[ $1 != *.cu ]]
}

missed=0
for file in $(cd "$root" && ls runtime/cuda/*.cu{,h} runtime/cuda/attention/*.cu{,h} | grep -e "$pattern"); do
  for line in $(grep -nE '__sync(threads|warp)\(\);|WaitForCopies<' "$root/$file" | cut -d: -f1); do
    mkdir -p "$scratch/$(dirname "$file")"
    sed -E "${line}s/(__sync(threads|warp)\(\)|WaitForCopies<[0-9]+>\(\));//" "$root/$file" > "$scratch/$file"
    build_mutant "$file"
    if is_noticed "$file"; then
      echo "noticed: $file:$line"
    else
      echo "MISSED:  $file:$line"
      missed=1
    fi
    rm "$scratch/$file"
  done
done
exit $missed
