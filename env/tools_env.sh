# SPDX-License-Identifier: Apache-2.0
# Environments of tools that the package itself does not need: each a small venv in the cache, so that a newer tool
# costs no new installation of the large one.

# ensure_tools NAME: sets TOOLS to the venv of env/requirements-NAME.txt; installs it unless a finished one is there.
ensure_tools() {
    local name=$1 requirements=$CLONE/env/requirements-$1.txt key
    mkdir -p "$CACHE" || die "the cache folder $CACHE cannot be made." "Set XDG_CACHE_HOME to a folder of yours."
    # Of a sourced ROS 2 nothing is wanted: the tools read sources alone.
    ROS_SOURCED=""
    unset PYTHONPATH
    find_python
    [ -n "$PYTHON_BASE" ] || die "there is no Python here." "Install python3 and python3-venv."
    key=$({
        cat "$requirements"
        "$PYTHON_BASE" -VV
    } | digest)
    TOOLS=$CACHE/$name-$key
    if [ ! -f "$TOOLS/complete" ]; then
        lock "$TOOLS.lock"
        # Another run may have finished it while this one waited.
        [ -f "$TOOLS/complete" ] || install_tools "$name" "$requirements"
        exec 9>&-
    fi
}

# install_tools NAME REQUIREMENTS: into TOOLS.
install_tools() {
    rm -rf "$TOOLS"
    "$PYTHON_BASE" -m venv "$TOOLS" || die "a Python environment could not be created in $TOOLS." \
        "On Debian and Ubuntu the package python3-venv is needed."
    with_progress "$TOOLS.log" "Installing the tools of make $1" \
        "$TOOLS/bin/python" -m pip install --progress-bar off --disable-pip-version-check -r "$2" ||
        die_of_pip "$TOOLS.log"
    touch "$TOOLS/complete"
}
