#!/usr/bin/env bash
# Builds the programs and an image of each as an OCI archive: images.sh [PROFILE]. PROFILE is release (default), or dev, which
# builds much faster and is what the tests take. The archives' folder is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-release}
host=$(rustc -vV | sed -n 's/^host: //p')
target="${CARGO_TARGET_DIR:-target}"
folder=$profile
[ "$profile" != dev ] || folder=debug
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
components=(proxy control-plane shop)

"${CARGO:-cargo}" build --locked --profile "$profile" "${components[@]/#/--package=weft-}" --bins >&2
mkdir -p "$target/images/$profile/programs"
for component in "${components[@]}"; do
  program="weft-$component"
  strip -o "$target/images/$profile/programs/$program" "$target/$host/$folder/$program"
  # containerd and the kubelet complete a name without a registry's host in this way.
  scripts/oci-image.sh "$component/Dockerfile" "$target/images/$profile/programs" \
    "docker.io/weft/$component:$version" "$target/images/$profile/$program.tar"
done
ls -l "$target/images/$profile/"*.tar >&2
echo "$target/images/$profile"
