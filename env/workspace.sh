# SPDX-License-Identifier: Apache-2.0
# The colcon workspace of this clone: build, install and log folders in the cache, so that the clone stays clean.

# Everything that the build depends on. Python, launch and configuration files are installed as links: their names
# matter here, not what they hold.
workspace_state() {
    printf '%s\n' "$VENV"
    cat "$CLONE/env/workspace.sh"
    find "$CLONE"/{clip_seg_ros,launch,config,rviz,weights} -name __pycache__ -prune -o -type f -print | sort
    find "$CLONE"/{CMakeLists.txt,package.xml,cmake,msg,srv,action} -type f -print0 | sort -z | xargs -0 sha256sum
}

# ensure_workspace: sets WORKSPACE; builds it unless what is there is up to date.
ensure_workspace() {
    local state
    WORKSPACE=$CACHE/ws-$(basename "$CLONE" | tr -c 'A-Za-z0-9\n' _)-$(printf '%s\n' "$CLONE" "$VENV" | digest)
    state=$(workspace_state | digest)
    [ "$(cat "$WORKSPACE/state" 2>/dev/null)" = "$state" ] && return
    mkdir -p "$WORKSPACE"
    lock "$WORKSPACE/lock"
    # Read again: another set-up may have built while this one waited.
    state=$(workspace_state | digest)
    if [ "$(cat "$WORKSPACE/state" 2>/dev/null)" != "$state" ]; then
        build_workspace
        write_setup_file
        printf '%s\n' "$state" >"$WORKSPACE/state"
    fi
    exec 9>&-
}

build_workspace() {
    local log=$WORKSPACE/build.log
    rm -f "$WORKSPACE/state"
    # Links to files that were renamed or deleted in the clone.
    [ -d "$WORKSPACE/install" ] && find "$WORKSPACE/install" -xtype l -delete
    if [ -z "$ROS_SOURCED" ]; then
        # The wheels unpack a ROS 2 installation into the environment itself.
        export AMENT_PREFIX_PATH=$VENV CMAKE_PREFIX_PATH=$VENV
    fi
    PATH=$VENV/bin:$PATH with_progress "$log" "Building the ROS 2 workspace in $WORKSPACE" \
        "$VENV/bin/python" -m colcon --log-base "$WORKSPACE/log" build --symlink-install \
        --paths "$CLONE" --build-base "$WORKSPACE/build" --install-base "$WORKSPACE/install" \
        --event-handlers console_direct+ \
        --cmake-args -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$VENV/bin/python" -DCMAKE_BUILD_TYPE=Release ||
        die "the workspace could not be built; all that was said is in $log" \
            "After a change of compilers or of the system, delete $WORKSPACE and type the same command again."
}

write_setup_file() {
    cat >"$WORKSPACE/setup.bash.new" <<EOF
# Source this in bash or zsh to stand in the environment of $CLONE (written by its set-up).
. "$VENV/bin/activate"
if [ -n "\${ZSH_VERSION:-}" ]; then
    . "$WORKSPACE/install/setup.zsh"
else
    . "$WORKSPACE/install/setup.bash"
fi
# Room for whole images in Fast DDS's shared memory, unless the user has chosen a profile or transports.
if [ -z "\${FASTDDS_DEFAULT_PROFILES_FILE:-}\${FASTRTPS_DEFAULT_PROFILES_FILE:-}\${FASTDDS_BUILTIN_TRANSPORTS:-}" ]; then
    export FASTDDS_DEFAULT_PROFILES_FILE="$WORKSPACE/install/clip_seg_ros/share/clip_seg_ros/config/fastdds_shm.xml"
    export FASTRTPS_DEFAULT_PROFILES_FILE="\$FASTDDS_DEFAULT_PROFILES_FILE"
fi
EOF
    mv "$WORKSPACE/setup.bash.new" "$WORKSPACE/setup.bash"
}
