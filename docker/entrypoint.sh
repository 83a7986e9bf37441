#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command in the environment of the container's ROS 2 and of the package.
set -e
source "$ROS_SETUP"
source "$(make -s -C /opt/clip_seg_ros env)"
# Images go through shared memory: the launch files set its profile and say so where there is too little room for it. What
# is started in another way has Fast DDS's defaults.
unset FASTDDS_DEFAULT_PROFILES_FILE FASTRTPS_DEFAULT_PROFILES_FILE
exec "$@"
