#!/usr/bin/env bash
# Starts lorica, or any program of ranks, on several hosts with mpirun:
#
#   launch/mpi_hosts.sh HOSTFILE RANKS_PER_HOST build/release/lorica train ...
#
# HOSTFILE has a host a line; '#' begins a comment, and what follows the name is
# left to mpirun. The program and its files must have the same paths on all
# hosts, and ssh (or OMPI_MCA_plm_rsh_agent) must open them without a question.
#
#   NETWORK=10.0.0.0/24   the network to talk over, where a host has several
#   MPIRUN=mpirun         the mpirun to start
#
# docs/clusters.md says why each option is there.
set -euo pipefail
fail() {
  echo "mpi_hosts: $1" >&2
  exit 2
}
[[ $# -ge 3 ]] || fail "usage: mpi_hosts.sh HOSTFILE RANKS_PER_HOST PROGRAM..."
hostfile=$1
ranks_per_host=$2
program=$3
shift 3
[[ -r $hostfile ]] || fail "cannot read the host file $hostfile"
[[ $ranks_per_host =~ ^[1-9][0-9]*$ ]] ||
  fail "RANKS_PER_HOST is \"$ranks_per_host\"; it must be a whole number above 0"
hosts=$(sed 's/#.*//' "$hostfile" | awk 'NF { print $1 }' | sort -u | wc -l)
[[ $hosts -gt 0 ]] || fail "$hostfile names no host"
program=$(command -v -- "$program") || fail "there is no program $program"
program=$(realpath -- "$program")

options=(
  --hostfile "$hostfile" -n $((hosts * ranks_per_host))
  # Neighbouring ranks on one host, where tensor groups belong. lorica spreads
  # the ranks of a host over its cores by itself.
  --map-by "ppr:$ranks_per_host:node"
  # A host that is gone is noticed after 5 + 3 * 2 seconds, not after hours.
  --mca oob_tcp_keepalive_time 5
  --mca oob_tcp_keepalive_intvl 2
  --mca oob_tcp_keepalive_probes 3
)
if [[ -n ${NETWORK:-} ]]; then
  options+=(--mca oob_tcp_if_include "$NETWORK"
    --mca btl_tcp_if_include "$NETWORK")
fi
# Variables that change how the program runs go with it.
while read -r name; do
  options+=(-x "$name")
done < <(compgen -e | grep -E \
  '^(LD_LIBRARY_PATH|OMP_|DNNL_|ONEDNN_|GLOG_|NCCL_|CUDA_|UCX_|ASAN_OPTIONS)')

exec "${MPIRUN:-mpirun}" "${options[@]}" "$program" "$@"
