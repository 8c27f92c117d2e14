#!/usr/bin/env bash
# install.sh LIST...: installs the Debian packages named in the lists, a name a
# line, that are not there yet. Root, or sudo, is needed only then.
set -euo pipefail

mapfile -t packages < <(grep -hv '^#' "$@")
missing=()
if ! command -v dpkg-query > /dev/null; then
  echo "This is not a Debian system. Going on in the hope that it has what" \
    "these packages hold: ${packages[*]}" >&2
  exit 0
fi
for package in "${packages[@]}"; do
  if [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" \
    2> /dev/null) != installed ]]; then
    missing+=("$package")
  fi
done
if [[ ${#missing[@]} -eq 0 ]]; then exit 0; fi

echo "Installing ${missing[*]}"
as_root=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo > /dev/null; then
    echo "Run this as root, or first, as root:" \
      "apt-get install ${missing[*]}" >&2
    exit 2
  fi
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update --quiet
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install --yes --quiet --no-install-recommends "${missing[@]}"
