#!/usr/bin/env bash
# A SLURM of the tests' own on loopback: munged, slurmctld and two slurmd, all their files in one folder.
# No systemd, no accounting, no cgroups; nothing of a real cluster is read, written or asked.
#
#   start.sh FOLDER      starts it and waits until it takes jobs; where it runs already, changes nothing.
#                        Then `export SLURM_CONF=FOLDER/slurm.conf`. stop.sh FOLDER ends it.
#   start.sh --check     fails with one line where programs are missing
#   start.sh --install   gets them by apt-get, as root; otherwise like --check
#
# Partition "one" is one node of 2 CPUs, "both" are two. Each daemon ends by itself after an hour, whatever
# became of the one who started it.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
    echo "error: $*" >&2
    exit 1
}

missing() {
    local program
    for program in munged slurmctld slurmd sbatch srun scontrol scancel squeue sinfo python3; do
        command -v "$program" >/dev/null || printf '%s ' "$program"
    done
}

check() {
    local gone
    gone=$(missing)
    [[ -z $gone ]] || fail "no ${gone% }: install them, on Debian and Ubuntu with 'apt-get install slurm-wlm munge'"
}

install() {
    [[ -n $(missing) && $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 0
    local apt=(apt-get -y -q -o Acquire::Retries=1 -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=60)
    export DEBIAN_FRONTEND=noninteractive
    # The daemons of the packages are not ours: where this file says so, Debian starts none at installation.
    local policy=/usr/sbin/policy-rc.d added=""
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && added=$policy
    fi
    { timeout 300 "${apt[@]}" update && timeout 600 "${apt[@]}" --no-install-recommends install slurm-wlm munge; } >&2 ||
        echo "error: apt-get could not install slurm-wlm and munge: is its server within reach?" >&2
    [[ -z $added ]] || rm -f "$added"
}

free_ports() { # prints $1 different ports: above our jobs' master ports, below those the system hands out
    python3 - "$1" <<'PYTHON'
import random, socket, sys

found = []
for port in random.sample(range(30000, 32768), 1000):
    with socket.socket() as trial:
        if trial.connect_ex(("127.0.0.1", port)) and len(found) < int(sys.argv[1]):
            found.append(port)
print(*found)
PYTHON
}

write_config() { # to $folder/slurm.conf
    local user host controller first second
    user=$(id -un) host=$(hostname -s)
    read -r controller first second <<<"$(free_ports 3)"
    # cred_expire: a job that is put back into the queue waits that long for its old credentials to expire
    # (120 s by default). KillWait: from SIGTERM to SIGKILL. Nodes are named by addresses, which need no
    # name server; the second's host name only has to differ.
    cat >"$folder/slurm.conf" <<CONFIG
# written by start.sh
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
NodeName=127.0.0.1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$first CPUs=2
NodeName=127.0.0.2 NodeHostname=second NodeAddr=127.0.0.2 Port=$second CPUs=2
PartitionName=one Nodes=127.0.0.1 Default=YES MaxTime=INFINITE
PartitionName=both Nodes=ALL MaxTime=INFINITE
CONFIG
}

daemon() { # starts "${@:2}" in a session of its own, what it prints in $folder/$1.out, its pid in $folder/pids
    setsid timeout --kill-after=20 3600 "${@:2}" </dev/null >"$folder/$1.out" 2>&1 &
    echo $! >>"$folder/pids"
}

start() {
    mkdir "$folder/state"
    (umask 077 && head -c 128 /dev/urandom >"$folder/munge.key")
    write_config
    daemon munged munged --foreground --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" \
        --log-file="$folder/munged.log" --pid-file="$folder/munged.pid" --seed-file="$folder/munged.seed"
    wait_for "munged" test -S "$folder/munge.socket"
    daemon slurmctld slurmctld -D
    wait_for "slurmctld" takes_commands
    daemon slurmd.1 slurmd -D -N 127.0.0.1
    daemon slurmd.2 slurmd -D -N 127.0.0.2
    wait_for "the nodes" are_idle
}

takes_commands() { timeout 10 scontrol ping 2>/dev/null | grep -q "is UP"; }

are_idle() { [[ $(timeout 10 sinfo -h -N -p both -o %T 2>/dev/null | sort -u) == idle ]]; }

wait_for() { # up to 60 s until "${@:2}" succeeds
    local end=$((SECONDS + 60))
    until "${@:2}"; do
        if ((SECONDS > end)); then
            tail -n 5 "$folder"/*.out >&2 || true
            "$here/stop.sh" "$folder" || true
            fail "$1 did not start within 60 s, the last lines of all are above"
        fi
        sleep 0.2
    done
}

case ${1:-} in
    --check) check && exit ;;
    --install) install && check && exit ;;
    "" | -*) fail "usage: $0 FOLDER | --check | --install" ;;
esac
check
mkdir -p "$1"
folder=$(cd "$1" && pwd)
# The paths of sockets below it may have 107 characters; SLURM takes no blanks.
[[ ${#folder} -le 70 && $folder != *[[:space:]]* ]] || fail "$folder: give a path without blanks, of at most 70 characters"
export SLURM_CONF=$folder/slurm.conf
if [[ -e $SLURM_CONF ]] && takes_commands; then
    echo "running already: export SLURM_CONF=$SLURM_CONF"
    exit
fi
[[ ! -e $SLURM_CONF ]] || "$here/stop.sh" "$folder"
mkdir -p "$folder"
[[ -z $(ls -A "$folder") ]] || fail "$folder is not empty: give a folder of its own"
start
echo "export SLURM_CONF=$SLURM_CONF"
