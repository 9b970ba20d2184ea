#!/usr/bin/env bash
# Ends what start.sh FOLDER started: its jobs, its daemons, the folder. Nothing to end is no error.
set -euo pipefail
[[ $# -eq 1 && $1 != -* ]] || { echo "usage: $0 FOLDER" >&2; exit 1; }
[[ -e $1/slurm.conf ]] || exit 0
folder=$(cd "$1" && pwd)
export SLURM_CONF=$folder/slurm.conf
grep -qx "# written by start.sh" "$SLURM_CONF" || { echo "error: $SLURM_CONF is not start.sh's" >&2; exit 1; }

# Jobs first: their step daemons would outlive the others. SLURM kills after KillWait what doesn't end.
jobs() { timeout 10 squeue --noheader --format=%A 2>/dev/null; }
for ((second = 0; second < 40; second++)); do
    left=$(jobs) || break
    [[ -n $left ]] || break
    ((second)) || timeout 20 scancel $left || true
    sleep 1
done

mapfile -t pids < <(cat "$folder/pids" 2>/dev/null || true)
alive() { # whether a pid is still a daemon's of this folder's, and not another process by now
    tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -q "^timeout --kill-after=20 3600 "
}
for pid in "${pids[@]}"; do
    ! alive "$pid" || kill "$pid" 2>/dev/null || true # timeout passes it on, and kills after 20 s
done
for ((second = 0; second < 250; second++)); do
    left=""
    for pid in "${pids[@]}"; do ! alive "$pid" || left=$pid; done
    [[ -n $left ]] || break
    sleep 0.1
done
rm -rf "$folder"
