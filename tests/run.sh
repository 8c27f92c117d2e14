#!/usr/bin/env bash
# Everything that must hold, on a plain Debian machine: installs what testing
# needs, then runs the tests from the release build to the sanitized ones, whose
# summary comes last.
set -euo pipefail
cd "$(dirname "$0")/.."

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

bash launch/install.sh launch/packages.txt tests/packages.txt
bash launch/fetch_model.sh ||
  echo "Without the base model, the tests that need it are skipped." >&2

echo "== Format"
git ls-files '*.cc' '*.h' | xargs clang-format --dry-run --Werror

echo "== Release build"
cmake --preset release -DLORICA_WERROR=ON
cmake --build --preset release
build/release/lorica --version
build/release/lorica help > /dev/null

if command -v nvcc > /dev/null; then
  source tests/support/cuda_headers.sh

  echo "== For sm_80, sm_90 and sm_100, with the real libraries"
  cmake --workflow --preset cuda
else
  echo "No nvcc here: the CUDA code is not compiled." >&2
fi

echo "== Ranks as threads under the thread sanitizer"
cmake --workflow --preset tsan

echo "== All tests under the address and undefined-behaviour sanitizers"
cmake --workflow --preset dev
