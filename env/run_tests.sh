#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs pytest in the environment that is sourced, with three processes for two cores, as far as there is memory for them:
# half of the time of a node's tests is waiting.
# Arguments go to pytest; "-n 0" runs all tests in one process, as a debugger needs it.
set -euo pipefail

GIB_EACH=3 # of a worker, the nodes that its tests start, and a model or two
cores=$(env -u OMP_NUM_THREADS nproc) # which counts threads instead where that is set
free=$(awk -v each=$GIB_EACH '/^MemAvailable:/ { print int($2 / 1048576 / each) }' /proc/meminfo 2>/dev/null || echo 1)
workers=$((free < 1 ? 1 : free < 3 * cores / 2 ? free : (3 * cores + 1) / 2))
# More threads than cores wait for each other.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((workers < cores ? cores / workers : 1))}
# A ROS 2 on the path brings pytest plugins that its own, older pytest needs; none of those is used here.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
# The tests of one file share nodes, so that a file stays with one worker; conftest.py orders the files.
exec pytest -p xdist -n "$workers" --dist loadfile --no-loadscope-reorder "$@"
