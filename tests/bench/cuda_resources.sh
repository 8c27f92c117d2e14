#!/bin/bash
# cuda_resources.sh BUILD: compiles the CUDA kernels as BUILD, a build directory
# of the preset `cuda`, has them compiled, and prints as a table in Markdown what
# a block of each takes of a multiprocessor and how many blocks and warps fit.
# Triples are sm_80, sm_90 and sm_100.
#
# Registers, static shared memory and spills are ptxas's. Threads and dynamic
# shared memory are repeated below from the launch functions, as no tool shows
# them without a device. Occupancy by the CUDA C++ Programming Guide (compute
# capabilities): 64 warps, 32 blocks and 65536 registers, 164 KiB of shared
# memory on sm_80 and 228 KiB later; registers are handed out by 256 to a warp,
# warps to four schedulers, shared memory by 128 bytes and 1 KiB more to a block.
set -euo pipefail
build=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$root"

# What ptxas says of a source's kernels for each architecture.
report_on() {
  local object=runtime/cuda/CMakeFiles/lorica_cuda.dir/${1#runtime/cuda/}.o command
  command=$(ninja -C "$build" -t commands "$object" | tail -1)
  command="${command//"$object"/"$scratch/object"} -Xptxas -v"
  (cd "$build" && eval "$command") 2>&1
}

echo "| kernel | threads | shared KiB | registers | spilled bytes | blocks | warps | limited by |"
echo "|---|---|---|---|---|---|---|---|"
for source in runtime/cuda/*.cu runtime/cuda/attention/*.cu; do
  report_on "$source"
done | c++filt | awk '
  # Threads and dynamic shared memory as the launch functions ask for them.
  function launch(name,    width, step, tiles, scores) {
    threads = 256; dynamic = 0  # A norm: of 4096 columns.
    if (name ~ /DotsKernel|(Forward|Dq|DkDv|Thin[A-Za-z]*)Kernel/) threads = 128
    if (name ~ /MergeStats/) threads = 64
    if (name ~ /Thin/) dynamic = 4 * 64 * (64 + 8) * 2
    if (name !~ /(Forward|Dq|DkDv)Kernel/) return
    match(name, /<[0-9]+/); width = substr(name, RSTART + 1, RLENGTH - 1)
    if (name ~ /Plain/) {
      tiles = name ~ /Forward/ ? 3 : 4; scores = name ~ /DkDv/ ? 2 : 1
      dynamic = 4 * (tiles * 32 * (width + 1) + scores * 32 * 33)
    } else if (name ~ /Forward/) {
      dynamic = 3 * 64 * (width + 8) * 2
    } else {
      step = width <= 64 ? 64 : 32
      dynamic = (2 * 64 + 4 * step) * (width + 8) * 2
    }
  }
  /Compiling entry function/ {
    name = $0; arch = $0
    sub(/.*entry function ./, "", name); sub(/. for .sm_.*/, "", name)
    sub(/.* for .sm_/, "", arch); sub(/[^0-9].*/, "", arch)
    gsub(/lorica::cuda::|lorica::|_GLOBAL__N_[_0-9a-z]*::|\(anonymous namespace\)::/, "", name)
    sub(/^void /, "", name); sub(/>\(.*/, ">", name); sub(/Kernel\(.*/, "Kernel", name)
    gsub(/SegmentTable<64l> >/, "SegmentTable>", name)
    gsub(/__nv_bfloat16/, "bf16", name); gsub(/\([A-Za-z]+\)/, "", name)
  }
  /spill stores/ { match($0, /[0-9]+ bytes spill stores/); spills = substr($0, RSTART) + 0 }
  /Used [0-9]+ registers/ {
    match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5) + 0
    static = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART) + 0 : 0
    launch(name)
    shared = static + dynamic
    warps = threads / 32
    each = int((registers * 32 + 255) / 256) * 256
    by_registers = int(int(65536 / each / 4) * 4 / warps)
    capacity = (arch == 80 ? 164 : 228) * 1024
    by_shared = int(capacity / (int((shared + 127) / 128) * 128 + 1024))
    blocks = int(64 / warps); limit = "warps"
    if (blocks > 32) { blocks = 32; limit = "blocks" }
    if (by_registers < blocks) { blocks = by_registers; limit = "registers" }
    if (by_shared < blocks) { blocks = by_shared; limit = "shared memory" }
    at[name] = sprintf("| `%s` | %d | %.1f |", name, threads, shared / 1024)
    uses[name, arch] = registers; spilled[name, arch] = spills
    fits[name, arch] = blocks; busy[name, arch] = blocks * warps; by[name, arch] = limit
  }
  function triple(of, name) { return " " of[name, 80] " " of[name, 90] " " of[name, 100] " |" }
  END {
    for (name in at) {
      limits = by[name, 80]
      if (by[name, 90] != limits || by[name, 100] != limits) {
        limits = by[name, 80] ", " by[name, 90] ", " by[name, 100]
      }
      print at[name] triple(uses, name) triple(spilled, name) triple(fits, name) \
            triple(busy, name) " " limits " |"
    }
  }' | sort
