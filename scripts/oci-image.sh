#!/usr/bin/env bash
# Writes an image of one layer as an OCI archive, without Docker: what `ctr images import`, `kind load image-archive` and
# `docker load` read. The same files give the same bytes.
#   oci-image.sh OUT.tar REFERENCE ENTRYPOINT-JSON FILE=/PATH...      [USER_ID=uid:gid in the environment]
set -euo pipefail
out=$1 reference=$2 entrypoint=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Nothing that depends on when, where and by whom the archive is made.
archive() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -cf "$1" -C "$2" "${@:3}"; }

mkdir -p "$work/root/tmp" "$work/image/blobs/sha256"
chmod 755 "$work/root"
chmod 1777 "$work/root/tmp"
for file in "$@"; do
  install -D -m 755 "${file%%=*}" "$work/root${file#*=}"
done

# Keeps a file under its digest; sets digest and size.
put() {
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  size=$(stat -c %s "$1")
  mv "$1" "$work/image/blobs/sha256/$digest"
}

case "$(uname -m)" in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) architecture=$(uname -m) ;;
esac
archive "$work/layer" "$work/root" .
put "$work/layer"
layer="sha256:$digest" layer_size=$size
printf '{"architecture":"%s","os":"linux","created":"1970-01-01T00:00:00Z","config":{"User":"%s","Entrypoint":%s,"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
  "$architecture" "${USER_ID:-}" "$entrypoint" "$layer" >"$work/config"
put "$work/config"
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%s}]}' \
  "$digest" "$size" "$layer" "$layer_size" >"$work/manifest"
put "$work/manifest"
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
  "$digest" "$size" "$architecture" "$reference" "$reference" >"$work/image/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
mkdir -p "$(dirname "$out")"
archive "$out" "$work/image" oci-layout index.json blobs
