#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs Chromium unless a browser is here that the tests of the view can drive; without one, they are skipped.
set -uo pipefail

CLONE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/clip_seg_ros
mkdir -p "$CACHE"
for part in lib system_packages; do
    # shellcheck source=/dev/null
    . "$CLONE/env/$part.sh"
done

for browser in chromium chromium-browser google-chrome; do
    command -v "$browser" >/dev/null && exit 0
done
install_system_packages "a browser for the tests of the view" chromium
