#!/usr/bin/env bash
# Checks licences, sources and duplicate crates with cargo-deny, which it installs once into $WEFT_TOOLS.
set -euo pipefail
cd "$(dirname "$0")/.."
# Whole, since the installation runs elsewhere.
tools="$(realpath -m "${WEFT_TOOLS:-${CARGO_TARGET_DIR:-target}/tools}")"
version=0.20.2
if ! "$tools/bin/cargo-deny" --version 2>/dev/null | grep -qF "$version"; then
  echo "deny: installing cargo-deny $version into $tools" >&2
  # Outside the repository, so that its flags and target do not apply to the tool.
  (cd / && cargo install --quiet --locked --root "$tools" "cargo-deny@$version")
fi
"$tools/bin/cargo-deny" --log-level warn check bans licenses sources
