#!/usr/bin/env bash
# Fuzzes each target of proxy/fuzz for the given number of seconds (default 60), starting from its corpus. What is found is
# written to proxy/fuzz/artifacts; the corpus itself is left as it is. cargo-fuzz works on the same layout and is not needed.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${1:-60}"

if ! rustup run nightly rustc --version >/dev/null 2>&1; then
  echo "fuzz: the nightly toolchain is missing: rustup toolchain install nightly --profile minimal" >&2
  exit 1
fi

target_dir="${CARGO_TARGET_DIR:-target}/fuzz"
host="$(rustc -vV | sed -n 's/^host: //p')"
# What cargo-fuzz passes: coverage for libFuzzer, address sanitizer.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Ccodegen-units=1"
cargo +nightly build --locked --release --manifest-path proxy/fuzz/Cargo.toml --target "$host" --target-dir "$target_dir"

for target in request response body; do
  found="$target_dir/corpus/$target"
  mkdir -p "$found" proxy/fuzz/artifacts
  echo "fuzz: $target for $seconds s" >&2
  "$target_dir/$host/release/$target" -max_total_time="$seconds" -max_len=2048 -verbosity=0 -print_final_stats=1 \
    -dict=proxy/fuzz/http1.dict -artifact_prefix="proxy/fuzz/artifacts/$target-" "$found" "proxy/fuzz/corpus/$target"
done
