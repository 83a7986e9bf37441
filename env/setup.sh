#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets everything up (system packages, Python environment, ROS 2 workspace) or sees that it is, and prints one line on
# standard output: the file to source. Progress and errors go to standard error.
set -uo pipefail

CLONE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/clip_seg_ros
for part in lib system_packages python_env workspace; do
    # shellcheck source=/dev/null
    . "$CLONE/env/$part.sh"
done

# forget_own VARIABLE: takes this project's folders out of a list of paths, so that a shell which already stands in the
# environment gets the same one again.
forget_own() {
    local kept
    kept=$(printf '%s' "${!1:-}" | tr ':' '\n' | grep -vF "$CACHE/" | paste -sd: -)
    if [ -n "$kept" ]; then export "$1=$kept"; else unset "$1"; fi
}

main() {
    case $CLONE$CACHE in
        *[[:space:]]*) die "CMake and scripts cannot cope with a space in a path:" "$CLONE" "$CACHE" \
            "Move the clone, or set XDG_CACHE_HOME to another folder." ;;
    esac
    mkdir -p "$CACHE" || die "the cache folder $CACHE cannot be made." "Set XDG_CACHE_HOME to a folder of yours."
    local variable
    for variable in PATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH; do
        forget_own "$variable"
    done
    unset VIRTUAL_ENV PYTHONHOME
    ROS_SOURCED=${AMENT_PREFIX_PATH:-}
    if [ -z "$ROS_SOURCED" ] && [ -n "${ROS_DISTRO:-}" ] && [ -f "/opt/ros/$ROS_DISTRO/setup.bash" ]; then
        say "ROS 2 $ROS_DISTRO is installed but not sourced; source /opt/ros/$ROS_DISTRO/setup.bash first to use it"
    fi
    find_python
    ensure_system_packages
    [ -n "$PYTHON_BASE" ] || find_python
    [ -n "$PYTHON_BASE" ] || die "Python was installed, but there is no python3 on PATH: $PATH"
    ensure_venv
    ensure_workspace
    printf '%s\n' "$WORKSPACE/setup.bash"
}

main
