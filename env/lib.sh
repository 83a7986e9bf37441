# SPDX-License-Identifier: Apache-2.0
# Shared by the set-up scripts: what a person sees, and how a step that fails is told.
# Everything goes to standard error: standard output belongs to the one line that `make -s env` prints.

say() { printf '%s\n' "clip_seg_ros: $*" >&2; }

# die WHAT_FAILED [WHAT_TO_DO...]: one line each, then stops the set-up.
die() {
    printf '\nclip_seg_ros: %s\n' "$1" >&2
    shift
    local line
    for line in "$@"; do printf '%s\n' "${line:+  $line}" >&2; done
    exit 1
}

# with_progress LOG WHAT COMMAND...: runs COMMAND with its output in LOG, showing the time and LOG's last line while it
# works. Returns COMMAND's status; the last lines of LOG are shown when it is not 0.
with_progress() {
    local log=$1 what=$2 child started=$SECONDS shown=$SECONDS status=0
    shift 2
    : >"$log"
    say "$what ..."
    "$@" >"$log" 2>&1 </dev/null &
    child=$!
    # A background command of a script does not hear Ctrl-C.
    trap 'kill "$child" 2>/dev/null; exit 130' INT TERM
    while kill -0 "$child" 2>/dev/null; do
        sleep 0.2
        if [ -t 2 ] || [ $((SECONDS - shown)) -ge 10 ]; then
            shown=$SECONDS
            progress_line $((SECONDS - started)) "$(last_news "$log")"
        fi
    done
    wait "$child" || status=$?
    trap - INT TERM
    if [ -t 2 ]; then printf '\r\033[K' >&2; fi
    if [ "$status" -ne 0 ]; then
        printf '\n----- last lines of %s\n' "$log" >&2
        tail -n 15 "$log" | cut -c 1-300 >&2
        printf -- '-----\n' >&2
        return "$status"
    fi
    say "$what: done in $((SECONDS - started)) s"
}

# last_news LOG: its last line that tells a person something.
last_news() {
    tail -n 40 "$1" | tr '\r' '\n' | grep -vE '^[[:space:]]*$|WARNING|ninstall|existing installation' | tail -n 1
}

# progress_line SECONDS TEXT: rewritten in place on a terminal, a line of its own elsewhere.
progress_line() {
    local text=${2//[$'\t\033']/ }
    if [ -t 2 ]; then
        printf '\r\033[K  %4d s  %.100s' "$1" "$text" >&2
    else
        printf '  %4d s  %.100s\n' "$1" "$text" >&2
    fi
}

# lock FILE: waits for other set-ups that hold FILE; held until this process ends.
lock() {
    exec 9>"$1"
    if ! flock -n 9; then
        say "another set-up is at work; waiting for it ..."
        flock 9
    fi
}

# digest: 12 hexadecimal digits for what stands on standard input.
digest() { sha256sum | cut -c 1-12; }
