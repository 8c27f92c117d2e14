#!/bin/bash
# cuda_resources.sh [NVCC]: compiles the CUDA kernels for each architecture and
# prints, as a table in Markdown, what a block of each takes of a multiprocessor
# and how many blocks and warps fit, as the occupancy rules of the CUDA C++
# Programming Guide (compute capabilities) have it: registers are handed out by
# 256 to a warp, shared memory by 128 bytes and 1 KiB more to a block.
set -euo pipefail
nvcc=${1:-nvcc}
root=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$root"

echo "| kernel | sm | threads | registers | shared KiB | spills | blocks | warps of 64 |"
echo "|---|---|---|---|---|---|---|---|"
for arch in 80 90 100; do
  for source in runtime/cuda/*.cu runtime/cuda/attention/*.cu; do
    "$nvcc" -std=c++20 --expt-relaxed-constexpr -Xptxas -v -I runtime/cuda/target \
      -I . -gencode "arch=compute_$arch,code=sm_$arch" -c "$source" \
      -o "$scratch/object" 2>&1 | c++filt
  done | awk -v arch="$arch" '
    # Threads and dynamic shared memory as the launch functions ask for them.
    function launch(name,    width, step) {
      threads = 256; dynamic = 0
      if (name ~ /DotsKernel/) threads = 128
      if (name ~ /Rms/) threads = 256  # 4096 columns
      if (name !~ /(Forward|Dq|DkDv)Kernel/) return
      threads = 128
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
      name = $0
      sub(/.*entry function ./, "", name); sub(/. for .sm_.*/, "", name)
      gsub(/lorica::cuda::|_GLOBAL__N_[_0-9a-z]*::|\(anonymous namespace\)::/, "", name)
      sub(/^void /, "", name); sub(/\(.*/, "", name); gsub(/__nv_bfloat16/, "bf16", name)
    }
    /spill stores/ { match($0, /[0-9]+ bytes spill stores/); spills = substr($0, RSTART) + 0 }
    /Used [0-9]+ registers/ {
      match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5) + 0
      static = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART) + 0 : 0
      launch(name)
      shared = static + dynamic
      warps = threads / 32
      by_registers = int(65536 / (int((registers * 32 + 255) / 256) * 256) / warps)
      capacity = (arch == 80 ? 164 : 228) * 1024
      by_shared = int(capacity / (int((shared + 127) / 128) * 128 + 1024))
      blocks = int(64 / warps); if (blocks > 32) blocks = 32
      if (by_registers < blocks) blocks = by_registers
      if (by_shared < blocks) blocks = by_shared
      printf "| %s | %s | %d | %d | %.1f | %d | %d | %d |\n", name, arch, threads, \
             registers, shared / 1024, spills, blocks, blocks * warps
    }'
done | sort -t'|' -k2,2 -k3,3n
