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
components=(proxy control-plane cni shop)
programs=("${components[@]/#/weft-}" weft-cni-node)

# In the tests' profile with all others, as `make test` builds them: another choice of packages would build their dependencies anew.
packages=(--workspace)
[ "$profile" = dev ] || packages=("${programs[@]/#/--package=}")
"${CARGO:-cargo}" build --locked --profile "$profile" "${packages[@]}" --bins >&2
mkdir -p "$target/images/$profile/programs"
for program in "${programs[@]}"; do
  strip -o "$target/images/$profile/programs/$program" "$target/$host/$folder/$program"
done
for component in "${components[@]}"; do
  # containerd and the kubelet complete a name without a registry's host in this way.
  scripts/oci-image.sh "$component/Dockerfile" "$target/images/$profile/programs" \
    "docker.io/weft/$component:$version" "$target/images/$profile/weft-$component.tar"
done
ls -l "$target/images/$profile/"*.tar >&2
echo "$target/images/$profile"
