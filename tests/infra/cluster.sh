#!/usr/bin/env bash
# A throw-away cluster out of Linux namespaces, for tests: every node has its own address, host name and
# /etc/hosts, an sshd on port 22 and a slurmd; the first process is the login node, with slurmctld and an ssh
# client that knows the nodes. All of it lives in one pid namespace: when that ends, nothing is left.
#   cluster.sh hold DIR NODES     start, and stay in the foreground until killed; DIR/ready appears when it is up
#   cluster.sh in DIR NODE CMD..  run CMD on `login` or on node0, node1, ...
# Needs root, and Debian's slurmctld, slurmd, slurm-client, munge, openssh-server and iproute2.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
self=$(readlink -f "$0")
net=10.77.0

hold() {
  local dir=$1 nodes=$2
  mkdir -p "$dir"/{log,ssh,munge,state,spool,pid}
  chmod 700 "$dir/state" "$dir/ssh"
  chmod 711 "$dir" "$dir/munge"
  echo $$ >"$dir/pid/hold"
  exec setpriv --pdeathsig KILL unshare --mount --uts --ipc --net --pid --fork --kill-child=KILL --mount-proc \
    "$self" _login "$dir" "$nodes" </dev/null >"$dir/log/login.log" 2>&1
}

in_node() {
  local dir=$1 node=$2 inner="" status
  shift 2
  local init hold
  hold=$(<"$dir/pid/hold")
  read -r init _ <"/proc/$hold/task/$hold/children" || true # it ends without a newline
  if [[ $node != login ]]; then
    inner=$(<"$dir/pid/$node")
    # The file holds the pid as the cluster counts; the last number of NSpid is that one.
    for status in /proc/[0-9]*/status; do
      if [[ $(readlink "${status%/status}/ns/pid" 2>/dev/null) == "$(readlink "/proc/$init/ns/pid")" ]] &&
        [[ $(awk '/^NSpid:/ {print $NF}' "$status" 2>/dev/null) == "$inner" ]]; then
        init=${status%/status}
        init=${init#/proc/}
        break
      fi
    done
  fi
  exec nsenter -t "$init" --mount --uts --ipc --net --pid --wd="$PWD" -- env SLURM_CONF="$dir/slurm.conf" "$@"
}

_login() {
  local dir=$1 nodes=$2 node pid
  trap '' INT TERM HUP
  mount --make-rprivate /
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/sshd /run/lock
  hostname login
  { echo "127.0.0.1 localhost"; echo "$net.1 login"; for ((i = 0; i < nodes; i++)); do echo "$net.$((10 + i)) node$i"; done; } >"$dir/hosts"
  mount --bind "$dir/hosts" /etc/hosts
  # The account's start files slow every ssh down and make the tests depend on the machine.
  for file in .bashrc .profile .bash_profile .ssh/rc .ssh/config; do
    [[ ! -f ~/$file ]] || mount --bind /dev/null ~/$file
  done
  ip link set lo up
  ip link add br0 type bridge stp_state 0 forward_delay 0
  ip addr add "$net.1/24" dev br0
  ip link set br0 up
  ssh_files "$dir" "$nodes"
  slurm_files "$dir" "$nodes"
  munged --force --key-file="$dir/munge/key" --socket="$dir/munge/sock" --pid-file="$dir/munge/pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" --num-threads=2
  export SLURM_CONF=$dir/slurm.conf
  slurmctld -c -f "$SLURM_CONF"
  for ((i = 0; i < nodes; i++)); do
    unshare --mount --uts --net "$self" _node "$dir" "$i" >"$dir/log/node$i.log" 2>&1 &
    pid=$!
    until [[ $(readlink /proc/$pid/ns/net) != "$(readlink /proc/1/ns/net)" ]]; do sleep 0.01; done
    ip link add "v$i" type veth peer name eth0 netns $pid
    ip link set "v$i" master br0 up
    echo "$pid" >"$dir/pid/node$i"
  done
  for ((tries = 0; tries < 300; tries++)); do
    [[ $(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l) == "$nodes" ]] && break
    sleep 0.1
  done
  sinfo -N
  touch "$dir/ready"
  set +e
  while :; do # also the parent of every orphan
    sleep 3600 &
    wait $!
  done
}

_node() {
  local dir=$1 number=$2
  trap '' INT TERM HUP
  hostname "node$number"
  mount --make-rprivate /
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/sshd
  ip link set lo up
  until ip link show eth0 >/dev/null 2>&1; do sleep 0.01; done
  ip addr add "$net.$((10 + number))/24" dev eth0
  ip link set eth0 up
  "$(command -v sshd)" -f "$dir/ssh/sshd_config" -h "$dir/ssh/host_$number" -E "$dir/log/sshd.node$number.log"
  slurmd -f "$dir/slurm.conf" -c
  set +e
  while :; do
    sleep 3600 &
    wait $!
  done
}

ssh_files() {
  local dir=$1 nodes=$2
  ssh-keygen -q -t ed25519 -N '' -C cluster -f "$dir/ssh/id"
  cp "$dir/ssh/id.pub" "$dir/ssh/authorized_keys"
  : >"$dir/ssh/known_hosts"
  for ((i = 0; i < nodes; i++)); do
    ssh-keygen -q -t ed25519 -N '' -C "node$i" -f "$dir/ssh/host_$i"
    echo "node$i,$net.$((10 + i)) $(cut -d' ' -f1,2 "$dir/ssh/host_$i.pub")" >>"$dir/ssh/known_hosts"
  done
  cat >"$dir/ssh/sshd_config" <<C
Port 22
AuthorizedKeysFile $dir/ssh/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PidFile none
UseDNS no
MaxStartups 100
C
  mkdir -p "$dir/ssh/conf.d"
  cat >"$dir/ssh/conf.d/cluster.conf" <<C
Host node* unknown
  User root
  IdentityFile $dir/ssh/id
  IdentitiesOnly yes
  UserKnownHostsFile $dir/ssh/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
C
  # So that a plain `ssh node0` of what is tested works; nobody outside sees it.
  mount --bind "$dir/ssh/conf.d" /etc/ssh/ssh_config.d
}

slurm_files() {
  local dir=$1 nodes=$2
  (umask 077 && head -c 1024 /dev/urandom >"$dir/munge/key")
  cat >"$dir/slurm.conf" <<C
ClusterName=test
SlurmctldHost=login($net.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A job that is put back waits so long before it may start again.
AuthInfo=socket=$dir/munge/sock,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/pid/slurmctld.pid
SlurmdPidFile=$dir/pid/%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
ReturnToService=2
SlurmdTimeout=30
MinJobAge=3600
KillWait=3
TCPTimeout=3
MessageTimeout=20
SlurmdParameters=config_overrides
DebugFlags=NO_CONF_HASH
C
  for ((i = 0; i < nodes; i++)); do
    mkdir -p "$dir/spool/node$i"
    # One processor each: tasks of an array go to different nodes.
    echo "NodeName=node$i NodeAddr=$net.$((10 + i)) CPUs=1 State=UNKNOWN" >>"$dir/slurm.conf"
  done
  echo "PartitionName=main Nodes=ALL Default=YES MaxTime=60 DefaultTime=30" >>"$dir/slurm.conf"
}

case ${1:-} in
  hold) hold "$2" "$3" ;;
  in) shift; in_node "$@" ;;
  _login) _login "$2" "$3" ;;
  _node) _node "$2" "$3" ;;
  *) sed -n 2,8p "$self"; exit 2 ;;
esac
