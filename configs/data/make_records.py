"""Builds train.jsonl and valid.jsonl from the package lists of a Debian 12 machine.

One record a source package: the fields of one of its binary packages as the
prompt, the package's one-line description as the completion. So no package in
valid.jsonl has a sibling in train.jsonl, and no description occurs twice, its
digits and punctuation aside.

    apt-get update && python3 configs/data/make_records.py
"""

import json
import pathlib
import random
import re
import subprocess

NUM_TRAIN = 4000
NUM_VALID = 200
SEED = 1
# Nearly every package depends on these, so they say nothing about one.
EVERYWHERE = {"libc6", "libgcc-s1", "libstdc++6"}
# What Haskell and OCaml packages append to a name to tell builds apart.
BUILD_HASH = re.compile(r"-[0-9.]+-[0-9a-f]{5}$|(?<=-ocaml)-[a-z0-9]{5}$|(?<=-ocaml-dev)-[a-z0-9]{5}$")
# Packages that exist for the archive's sake and describe nothing.
NOT_A_THING = re.compile(r"transitional|dummy|metapackage|debug symbols", re.I)


def package_list():
    """Returns the text of the main section's package list."""
    targets = subprocess.check_output(
        ["apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages",
         "Origin: Debian", "Codename: bookworm", "Component: main"], text=True).split()
    return subprocess.check_output(["/usr/lib/apt/apt-helper", "cat-file", *targets], text=True)


def fields(paragraph):
    """Returns a package's one-line fields by name."""
    return dict(re.findall(r"^([\w-]+): (.+)$", paragraph, re.M))


def source_of(package):
    return package.get("Source", package["Package"]).split()[0]


def depends_of(package):
    """Returns the first few names the package depends on, once each."""
    names = re.findall(r"(?:^|, )([a-z0-9][a-z0-9+.-]+)", package.get("Depends", ""))
    names = [BUILD_HASH.sub("", name) for name in names]
    return [name for name in dict.fromkeys(names) if name not in EVERYWHERE][:5]


def record(package):
    """Returns the package's record, or None where a field is missing or odd."""
    depends = depends_of(package)
    homepage = re.sub(r"^https?://(www\.)?|/+$", "", package.get("Homepage", ""))
    description = " ".join(package.get("Description", "").split())
    if not depends or not homepage or len(homepage) > 50:
        return None
    if not 20 <= len(description) <= 90 or NOT_A_THING.search(description):
        return None
    prompt = (f"Package: {package['Package']}\n"
              f"Source: {source_of(package)}\n"
              f"Section: {package['Section']}\n"
              f"Depends: {', '.join(depends)}\n"
              f"Homepage: {homepage}\n"
              "Description:")
    # The completion starts with the space: byte-level BPE then gives prompt and
    # completion the tokens their concatenation would have.
    completion = " " + description
    return {"prompt": prompt, "completion": completion} if (prompt + completion).isascii() else None


def candidates(text):
    """Returns one record a source package, no two with the same description."""
    packages = sorted((fields(paragraph) for paragraph in text.split("\n\n") if paragraph.strip()),
                      key=lambda package: package["Package"])
    random.Random(SEED).shuffle(packages)
    sources, descriptions, records = set(), set(), []
    for package in packages:
        source = source_of(package)
        made = record(package)
        if made is None or source in sources:
            continue
        words = re.sub(r"[^a-z]+", " ", made["completion"].lower())
        if words in descriptions:
            continue
        sources.add(source)
        descriptions.add(words)
        records.append(made)
    return records


def write(name, records):
    path = pathlib.Path(__file__).with_name(name)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in records), encoding="ascii")
    print(f"{name}: {len(records)} records, {path.stat().st_size} bytes")


def main():
    records = candidates(package_list())
    write("valid.jsonl", records[:NUM_VALID])
    write("train.jsonl", records[NUM_VALID:NUM_VALID + NUM_TRAIN])


if __name__ == "__main__":
    main()
