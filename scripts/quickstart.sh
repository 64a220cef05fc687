#!/bin/sh
# The whole story on real input: bake, set up, train, build, smoke-test, verify.
set -eu
cd "$(dirname "$0")/.."
out=build/quickstart
begin=$(date +%s)

step() {
    now=$(date +%s)
    printf '\n== %s  [%d s]\n' "$*" $((now - begin))
}

step "Bake a research repository from the template"
rm -rf "$out" && mkdir -p "$out"
.venv/bin/cookiecutter . --no-input --output-dir "$out"
cd "$out/penguins"

step "make setup: its environments and its locks"
make --no-print-directory setup

step "make train cards: model, metrics, recorded examples, and the numbers in the card"
make --no-print-directory train cards

step "make image: assembled from locked bytes, loaded, smoke-tested sealed"
make --no-print-directory image

step "make smoke: what was replayed, and how far off it was"
make --no-print-directory smoke

step "make verify: rebuilt from its sources, and compared bit for bit"
make --no-print-directory verify

step "Done: the repository is in $out/penguins"
printf '  docker run --rm penguins:0.1.0 info\n'
printf '  docker run --rm -i penguins:0.1.0 predict < %s/penguins/models/sample.csv\n' "$out"
