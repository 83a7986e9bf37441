#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the documentation as a site, strictly: a broken link ends it. Arguments go to `mkdocs build`.
set -uo pipefail

CLONE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/clip_seg_ros
for part in lib system_packages python_env tools_env; do
    # shellcheck source=/dev/null
    . "$CLONE/env/$part.sh"
done

main() {
    ensure_tools docs
    export NO_MKDOCS_2_WARNING=1 # an advertisement
    cd "$CLONE" && "$TOOLS/bin/python" -m mkdocs build --strict "$@" || exit 1
    say "the site is in $CLONE/site: open site/index.html"
}

main "$@"
