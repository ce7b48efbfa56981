#!/usr/bin/env bash
# Builds an image from a Dockerfile on an empty base, without Docker: oci-image.sh DOCKERFILE CONTEXT REFERENCE OUT.tar
# Knows FROM scratch, COPY of single files, USER and ENTRYPOINT. The archive is an OCI layout, which `ctr images import`,
# `kind load image-archive` and `docker load` read; the same files give the same bytes.
set -euo pipefail
dockerfile=$1 context=$2 reference=$3 out=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Nothing that depends on when, where and by whom the archive is made.
archive() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -cf "$1" -C "$2" "${@:3}"; }

# Keeps a file under its digest; sets digest and size.
put() {
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  size=$(stat -c %s "$1")
  mv "$1" "$work/image/blobs/sha256/$digest"
}

mkdir -p "$work/root" "$work/image/blobs/sha256"
chmod 755 "$work/root"
user='' entrypoint='[]'
while read -r instruction rest; do
  case "$instruction" in
    '' | '#'*) ;;
    FROM) [ "$rest" = scratch ] || { echo "oci-image: $dockerfile: FROM $rest: only scratch is known" >&2; exit 1; } ;;
    COPY)
      read -r source target <<<"$rest"
      install -D -m 755 "$context/$source" "$work/root$target"
      ;;
    USER) user=$rest ;;
    ENTRYPOINT) entrypoint=$rest ;;
    *) echo "oci-image: $dockerfile: $instruction is not known: use docker build, or extend this script" >&2; exit 1 ;;
  esac
done <"$dockerfile"
case "$(uname -m)" in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) architecture=$(uname -m) ;;
esac

archive "$work/layer" "$work/root" .
put "$work/layer"
layer="sha256:$digest" layer_size=$size
media=application/vnd.oci.image
cat >"$work/config" <<JSON
{"architecture":"$architecture","os":"linux","created":"1970-01-01T00:00:00Z","config":{"User":"$user","Entrypoint":$entrypoint,"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["$layer"]}}
JSON
put "$work/config"
cat >"$work/manifest" <<JSON
{"schemaVersion":2,"mediaType":"$media.manifest.v1+json","config":{"mediaType":"$media.config.v1+json","digest":"sha256:$digest","size":$size},"layers":[{"mediaType":"$media.layer.v1.tar","digest":"$layer","size":$layer_size}]}
JSON
put "$work/manifest"
cat >"$work/image/index.json" <<JSON
{"schemaVersion":2,"mediaType":"$media.index.v1+json","manifests":[{"mediaType":"$media.manifest.v1+json","digest":"sha256:$digest","size":$size,"platform":{"architecture":"$architecture","os":"linux"},"annotations":{"io.containerd.image.name":"$reference","org.opencontainers.image.ref.name":"$reference"}}]}
JSON
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
mkdir -p "$(dirname "$out")"
archive "$work/archive" "$work/image" oci-layout index.json blobs
# At once: whoever loads it meanwhile has the old or the new one.
mv "$work/archive" "$out"
