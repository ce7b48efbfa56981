#!/usr/bin/env bash
# Installs the system packages that the named purposes need (build, test, fuzz, bench, cluster, prometheus): as root by itself, otherwise it names
# them in one line and stops. What tests can do without it only names.
set -euo pipefail

declare -A packages=(
  # command → package
  [gcc]=gcc [g++]=g++ [make]=make [cmake]=cmake [git]=git
)
# The same of what tests can do without: those that need it say so and are skipped.
declare -A optional=()
for purpose in "$@"; do
  case "$purpose" in
    build) ;;
    test)
      packages[nginx]=nginx-light
      command -v chromium-browser google-chrome >/dev/null || optional[chromium]=chromium
      optional[prometheus]=prometheus
      python3 -c 'import ensurepip, venv' 2>/dev/null || optional[python3 with venv]=python3-venv
      ;;
    fuzz) ;;
    bench)
      packages[nginx]=nginx-light packages[haproxy]=haproxy
      python3 -c 'import ensurepip, venv' 2>/dev/null || optional[python3 with venv]=python3-venv
      ;;
    prometheus) packages[prometheus]=prometheus ;;
    cluster)
      packages[containerd]=containerd packages[runc]=runc packages[/usr/lib/cni/bridge]=containernetworking-plugins
      packages[iptables]=iptables packages[ip]=iproute2 packages[nsenter]=util-linux packages[sysctl]=procps
      needs_go=yes
      ;;
    *) echo "setup: unknown purpose '$purpose' (build, test, fuzz, bench, cluster, prometheus)" >&2; exit 2 ;;
  esac
done

missing=()
for command in "${!packages[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || missing+=("${packages[$command]}")
done

if ! command -v cargo >/dev/null; then
  echo "setup: Rust is missing: install it with rustup (stable, 1.95 or newer), then run this again" >&2
  exit 1
fi
if [ -n "${needs_go:-}" ] && ! command -v go >/dev/null; then
  echo "setup: Go is missing: install 1.24 or newer, then run this again" >&2
  exit 1
fi
unneeded=()
for command in "${!optional[@]}"; do
  command -v "$command" >/dev/null || unneeded+=("${optional[$command]}")
done

can_install() { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; }
install() {
  export DEBIAN_FRONTEND=noninteractive
  echo "setup: installing $*" >&2
  apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 \
    || { apt-get update >/dev/null && apt-get install -y --no-install-recommends "$@" >/dev/null; }
}
if [ ${#missing[@]} -gt 0 ]; then
  if ! can_install; then
    echo "setup: missing system packages, install them first: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
  install "${missing[@]}"
fi
if [ ${#unneeded[@]} -gt 0 ]; then
  { can_install && install "${unneeded[@]}"; } \
    || echo "setup: some tests will be skipped unless you install: sudo apt-get install ${unneeded[*]}" >&2
fi
