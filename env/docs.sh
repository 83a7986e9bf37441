#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the documentation as a site, strictly: a broken link ends it. Arguments go to `mkdocs build`. What the models
# make of photographs is drawn first, in the package's own environment; without it the site has a note in its place.
set -uo pipefail

CLONE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/clip_seg_ros
for part in lib system_packages python_env tools_env; do
    # shellcheck source=/dev/null
    . "$CLONE/env/$part.sh"
done

# draw_photographs: into docs/photographs; what an earlier run left there stays if this one fails.
draw_photographs() {
    local setup
    # The file to source uses variables that may not be set.
    # shellcheck disable=SC1090
    setup=$("$CLONE/env/setup.sh") &&
        (set +u && . "$setup" && cd "$CLONE" && exec python docs/tools/draw_photographs.py >&2)
}

main() {
    draw_photographs || say "the page of photographs is built without new pictures; the lines above say why"
    ensure_tools docs
    export NO_MKDOCS_2_WARNING=1 # an advertisement
    cd "$CLONE" && "$TOOLS/bin/python" -m mkdocs build --strict "$@" || exit 1
    say "the site is in $CLONE/site: open site/index.html"
}

main "$@"
