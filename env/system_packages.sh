# SPDX-License-Identifier: Apache-2.0
# System packages (Debian, Ubuntu): asked for only when something is missing.

# install_system_packages WHY PACKAGE...: as root, or through sudo where it asks for no password.
install_system_packages() {
    local why=$1 sudo=()
    shift
    local install="apt-get install -y --no-install-recommends $*"
    if [ "$(id -u)" -ne 0 ]; then
        sudo=(sudo -n)
        if ! sudo -n true 2>/dev/null; then
            die "missing: $why. Please type" "" "sudo apt-get update && sudo $install" "" \
                "and then the same command again."
        fi
    fi
    command -v apt-get >/dev/null || die "missing: $why, and there is no apt-get here." \
        "Install what these Debian packages hold: $*" "and type the same command again."
    local log=$CACHE/apt.log
    local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300)
    # An old package list names files that the mirrors no longer have; a broken third-party source must not stop us.
    with_progress "$log" "Updating the list of system packages" "${apt[@]}" update ||
        say "apt-get update failed; going on with the list that is there"
    with_progress "$log" "Installing system packages: $*" "${apt[@]}" install -y --no-install-recommends "$@" ||
        die "apt-get could not install: $*" \
            "Please run it by hand, see what it says, and type the same command again:" "sudo $install"
}

has_library() { { ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } | grep -q "[[:space:]]$1 "; }
has_package() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

# Rendering without a screen: NVIDIA's EGL, or Mesa's with its software driver, or OSMesa.
can_render() {
    has_library libOSMesa.so.8 && return
    has_library libEGL.so.1 && { has_library libOpenGL.so.0 || has_library libGL.so.1; } &&
        { has_library libEGL_nvidia.so.0 || has_package libgl1-mesa-dri; }
}

# missing_python_parts: names the Debian packages of what Debian keeps apart from its Python and PYTHON_BASE lacks.
missing_python_parts() {
    local version missing=()
    version=$("$PYTHON_BASE" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$PYTHON_BASE" -c 'import ensurepip, venv' 2>/dev/null || missing+=("python$version-venv")
    [ -f "$("$PYTHON_BASE" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
        missing+=("python$version-dev")
    [ ${#missing[@]} -eq 0 ] && return
    case $(readlink -f "$PYTHON_BASE") in
        /usr/bin/*) echo "${missing[@]}" ;;
        *) die "$PYTHON_BASE lacks what the Debian packages ${missing[*]} hold." \
            "Give another Python, such as: PYTHON=/usr/bin/python3 make env" ;;
    esac
}

# ensure_system_packages: what the environment, the build and the simulated camera need, asked for all at once.
# PYTHON_BASE is empty where no Python was found.
ensure_system_packages() {
    local missing=() parts
    command -v cmake >/dev/null || missing+=(cmake)
    command -v c++ >/dev/null && command -v cc >/dev/null || missing+=(g++)
    command -v make >/dev/null || missing+=(make)
    can_render || missing+=(libegl1 libgl1-mesa-dri libopengl0)
    if [ -z "$PYTHON_BASE" ]; then
        missing+=(python3 python3-venv python3-dev)
    else
        parts=$(missing_python_parts) || exit
        # shellcheck disable=SC2206
        missing+=($parts)
    fi
    [ ${#missing[@]} -eq 0 ] && return
    install_system_packages "tools to build and to render with (${missing[*]})" "${missing[@]}"
    hash -r
    # A tool that is still not found now would fail later with a message that explains nothing.
    command -v cmake >/dev/null && command -v c++ >/dev/null ||
        die "cmake or c++ is not on PATH although installed." "Check PATH: $PATH"
}
