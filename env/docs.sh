#!/usr/bin/env bash
# Builds the documentation as a site, strictly: a broken link ends it. Its tools get an environment of their own in the
# cache, since the package's own does not need them. Arguments go to `mkdocs build`.
set -uo pipefail

CLONE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/clip_seg_ros
for part in lib system_packages python_env; do
    # shellcheck source=/dev/null
    . "$CLONE/env/$part.sh"
done

main() {
    mkdir -p "$CACHE" || die "the cache folder $CACHE cannot be made." "Set XDG_CACHE_HOME to a folder of yours."
    ROS_SOURCED=""
    find_python
    [ -n "$PYTHON_BASE" ] || die "there is no Python here." "Install python3 and python3-venv."
    local key requirements=$CLONE/env/requirements-docs.txt
    key=$({
        cat "$requirements"
        "$PYTHON_BASE" -VV
    } | digest)
    local venv=$CACHE/docs-$key
    if [ ! -f "$venv/complete" ]; then
        lock "$venv.lock"
        # Another build may have finished it while this one waited.
        [ -f "$venv/complete" ] || install_docs_tools "$venv" "$requirements"
        exec 9>&-
    fi
    # Of a sourced ROS 2 nothing is wanted: the reference is made from the sources.
    unset PYTHONPATH
    export NO_MKDOCS_2_WARNING=1 # an advertisement
    cd "$CLONE" && "$venv/bin/python" -m mkdocs build --strict "$@" || exit 1
    say "the site is in $CLONE/site: open site/index.html"
}

# install_docs_tools VENV REQUIREMENTS
install_docs_tools() {
    rm -rf "$1"
    "$PYTHON_BASE" -m venv "$1" || die "a Python environment could not be created in $1." \
        "On Debian and Ubuntu the package python3-venv is needed."
    with_progress "$1.log" "Installing the tools of the documentation" \
        "$1/bin/python" -m pip install --progress-bar off --disable-pip-version-check -r "$2" || die_of_pip "$1.log"
    touch "$1/complete"
}

main "$@"
