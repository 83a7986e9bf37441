#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks format, rules and types of the code, and changes nothing. "env/check.sh --fix" formats it and mends what can be
# mended without asking.
set -uo pipefail

CLONE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/clip_seg_ros
for part in lib system_packages python_env tools_env; do
    # shellcheck source=/dev/null
    . "$CLONE/env/$part.sh"
done

main() {
    local fix=() look=(--check) failed=()
    if [ "${1:-}" = --fix ]; then
        fix=(--fix) look=()
    fi
    ensure_tools check
    cd "$CLONE" || exit 1
    # All of them run, so that one look shows everything.
    "$TOOLS/bin/ruff" check "${fix[@]}" . || failed+=(rules)
    "$TOOLS/bin/ruff" format "${look[@]}" . || failed+=(format)
    "$TOOLS/bin/python" -m mypy || failed+=(types)
    [ ${#failed[@]} -eq 0 ] || die "not as it should be: ${failed[*]}." \
        "make check ARGS=--fix formats the code and mends some of the rest."
    say "format, rules and types are as they should be"
}

main "$@"
