#!/usr/bin/env bash
# ONNX Runtime's C headers into a folder:  fetch_headers.sh FOLDER
#
# The Python wheel has the library without them, and Debian has them from trixie on (libonnxruntime-dev); there, and
# where another package brought them, nothing needs to be fetched. Elsewhere (Debian bookworm, Ubuntu) the package is
# downloaded from the Debian archive that this machine's apt knows, or from DEBIAN_MIRROR, its signature is checked, and the
# headers alone are unpacked: nothing is installed, and no root is needed. It needs apt and debian-archive-keyring.
set -euo pipefail
folder=${1:?usage: fetch_headers.sh FOLDER}
mkdir -p "$folder"
folder=$(realpath "$folder")
if [ -e "$folder/onnxruntime_c_api.h" ]; then exit 0; fi

known=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/$' || true)
mirror=${DEBIAN_MIRROR:-$known}
if [ -z "$mirror" ]; then
  echo "apt knows no Debian archive here: set DEBIAN_MIRROR to one, or install ONNX Runtime's headers otherwise" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/unpacked"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $mirror trixie main" > "$work/sources.list"
options=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
  -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=)
apt-get -qq "${options[@]}" update
(cd "$work" && apt-get -qq "${options[@]}" download libonnxruntime-dev)
dpkg -x "$work"/libonnxruntime-dev_*.deb "$work/unpacked"
header=$(find "$work/unpacked" -name onnxruntime_c_api.h -print -quit)
cp "$(dirname "$header")"/*.h "$folder"
