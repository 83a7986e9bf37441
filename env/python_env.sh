# SPDX-License-Identifier: Apache-2.0
# The Python environment: a venv outside the clone, named after everything that decides what is in it.

PIP_VERSION=26.3

# is_python COMMAND LOWEST HIGHEST: is it a Python that runs, of a version in that range (minor numbers of Python 3)?
is_python() {
    "$1" -c "import sys; sys.exit(not (3, $2) <= sys.version_info[:2] <= (3, $3))" 2>/dev/null
}

# base_of PYTHON: the interpreter behind it, so that a shell with some venv activated gets the same environment.
base_of() { "$1" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))'; }

# find_python: sets PYTHON_BASE, to nothing where there is no Python at all. With a sourced ROS 2 it must be the one
# that ROS 2 was built for.
find_python() {
    local candidate
    PYTHON_BASE=""
    for candidate in ${PYTHON:-python3 /usr/bin/python3 python3.12 python3.11 python3.13 python3.10}; do
        command -v "$candidate" >/dev/null || continue
        if [ -n "$ROS_SOURCED" ]; then
            is_python "$candidate" 10 99 || continue
            "$(base_of "$candidate")" -c 'import rclpy' 2>/dev/null || continue
        else
            is_python "$candidate" 10 13 || continue
        fi
        PYTHON_BASE=$(base_of "$candidate")
        return
    done
    [ -n "${PYTHON:-}" ] && die "PYTHON=$PYTHON will not do." \
        "It must be Python 3.10 to 3.13, or, with a ROS 2 sourced, one that can import its rclpy."
    [ -n "$ROS_SOURCED" ] && die "a ROS 2 is sourced ($ROS_SOURCED), but no Python here can import its rclpy." \
        "Source its setup.bash again in a new shell, or leave ROS 2 out: in a shell where it is not sourced the same" \
        "command installs ROS 2 Jazzy by itself. PYTHON=/path/to/python3 names another Python."
    command -v python3 >/dev/null && die "no Python 3.10 to 3.13 was found ($(python3 --version 2>&1 | head -n 1))." \
        "Install one of them and name it: PYTHON=/path/to/python3.12 make env"
}

# The requirement files of this machine, in REQUIREMENTS; versions that must stay as they are, in KEEP.
choose_requirements() {
    REQUIREMENTS=("$CLONE/env/requirements.txt")
    KEEP=""
    if [ -z "$ROS_SOURCED" ]; then
        REQUIREMENTS+=("$CLONE/env/requirements-torch.txt" "$CLONE/env/requirements-ros.txt")
        return
    fi
    if ! "$PYTHON_BASE" -c 'import cv2, numpy' 2>/dev/null; then
        install_system_packages "NumPy and OpenCV for the Python of the sourced ROS 2" python3-numpy python3-opencv
        "$PYTHON_BASE" -c 'import cv2, numpy' || die "$PYTHON_BASE cannot import NumPy or OpenCV, although installed."
    fi
    # ROS 2 was built against this NumPy.
    KEEP=$("$PYTHON_BASE" "$CLONE/env/keep_versions.py" numpy torch torchvision)
    case $KEEP in
        *torch==*torchvision==*) ;;
        *torch==*) die "$PYTHON_BASE has a PyTorch of its own, but no torchvision." \
            "Install the torchvision that the vendor of this PyTorch (${KEEP##*torch==}) offers for it." ;;
        *) REQUIREMENTS+=("$CLONE/env/requirements-torch.txt") ;;
    esac
}

# ensure_venv: sets VENV; installs it unless a finished one is there.
ensure_venv() {
    local key
    choose_requirements
    key=$({
        cat "${REQUIREMENTS[@]}" "$CLONE"/env/*.py "$CLONE/env/python_env.sh"
        printf '%s\n' "$KEEP" "$ROS_SOURCED" "$PYTHON_BASE"
        "$PYTHON_BASE" -VV
    } | digest)
    VENV=$CACHE/venv-$key
    [ -f "$VENV/complete" ] && return
    lock "$CACHE/venv-$key.lock"
    # Another set-up may have finished it while this one waited.
    [ -f "$VENV/complete" ] || install_venv
    exec 9>&-
}

room_left() { df -h --output=avail "$CACHE" | tail -n 1 | tr -d ' '; }

die_of_pip() {
    die "pip could not install the Python packages; all it said is in $1" \
        "No network, or a proxy or mirror that pip does not know? PIP_PROXY, PIP_INDEX_URL or 'pip config' tell it." \
        "No room? $(room_left) left in $CACHE; 5G are enough without CUDA, 12G with it." \
        "Then type the same command again."
}

install_venv() {
    local log=$CACHE/venv-${VENV##*-}.log pip requirement options=()
    [ -e "$VENV" ] && say "starting an unfinished environment again"
    rm -rf "$VENV"
    [ -n "$ROS_SOURCED" ] && options=(--system-site-packages)
    with_progress "$log" "Creating a Python environment in $VENV ($("$PYTHON_BASE" -V))" \
        "$PYTHON_BASE" -m venv "${options[@]}" "$VENV" ||
        die "a Python environment could not be created." "Is there room on the disk? $(room_left) left in $CACHE."
    # What pip unpacks may be too much for a /tmp in memory, and stays behind when it is interrupted: here it goes with
    # the unfinished environment.
    mkdir "$VENV/tmp"
    pip=(env "TMPDIR=$VENV/tmp" "$VENV/bin/python" -m pip install --progress-bar off --disable-pip-version-check)
    # The pip that older Pythons bring loses its way among the ROS packages' version ranges.
    with_progress "$log" "Updating pip" "${pip[@]}" "pip==$PIP_VERSION" || die_of_pip "$log"
    for requirement in "${REQUIREMENTS[@]}"; do pip+=(-r "$requirement"); done
    if [ -n "$KEEP" ]; then
        printf '%s\n' "$KEEP" >"$VENV/keep.txt"
        pip+=(-c "$VENV/keep.txt")
    fi
    with_progress "$log" "Installing Python packages${ROS_SOURCED:+ beside the sourced ROS 2}, some minutes" \
        "${pip[@]}" || die_of_pip "$log"
    rm -rf "$VENV/tmp"
    if [ -z "$ROS_SOURCED" ]; then
        "$VENV/bin/python" "$CLONE/env/fix_cmake_paths.py" || die "the ROS 2 wheels in $VENV are not as expected."
    fi
    "$VENV/bin/python" "$CLONE/env/workspace_first.py" --install || die "$VENV cannot be written to."
    touch "$VENV/complete"
}
