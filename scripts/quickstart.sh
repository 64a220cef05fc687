#!/bin/sh
# The whole story on real input: bake, set up, train, lock, build, smoke-test, look inside.
set -eu
cd "$(dirname "$0")/.."
out=build/quickstart

step() { printf '\n== %s\n' "$*"; }

step "Bake a research repository from the template (cookiecutter . --no-input)"
rm -rf "$out" && mkdir -p "$out"
.venv/bin/cookiecutter . --no-input --output-dir "$out"
cd "$out/penguins"

step "Set up its environment and its locks (make setup)"
make --no-print-directory setup

step "Train, export, record examples (make train)"
make --no-print-directory train

step "Build the image, sealed and smoke-tested (make image)"
make --no-print-directory image

step "What was replayed (make smoke)"
make --no-print-directory smoke

printf '\nThe repository is in %s; try:\n' "$out/penguins"
printf '  docker run --rm penguins:0.1.0 info\n'
