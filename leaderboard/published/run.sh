#!/usr/bin/env bash
# Trains what reproduces published numbers, the cheapest first; runs that are stored already are left out.
#     leaderboard/published/run.sh [COMMAND…]     COMMAND is put in front of each study, e.g. `nice`
cd "$(dirname "$0")/../.." || exit 1
for study in leaderboard/published/studies/*.toml; do
  "$@" rulezoo compare --config "$study" --out leaderboard/published --jobs 1 --yes
done
