#!/bin/bash
# Runs a program under mpirun on two hosts: network namespaces joined by a
# virtual cable, with a launch agent in the place of ssh. Talks over TCP.
#
#   several_hosts.sh RANKS_PER_HOST PROGRAM [ARGUMENT...]
#
# CUT_AFTER=seconds in the environment cuts the cable that long after the start.
# mpirun notices a host that is gone by TCP's keepalive, by default after eight
# minutes; here after five seconds.
# Exits as mpirun does, and 77 where namespaces are not to be had.
set -u
ranks_per_host=$1
shift

skip() {
  echo "several_hosts: skipped: $1"
  exit 77
}
[ "$(id -u)" = 0 ] || skip "needs root"
command -v ip > /dev/null || skip "needs iproute2"
command -v mpirun > /dev/null || skip "needs mpirun"

# Names and addresses of this run, so that two may run side by side.
tag=lor$((BASHPID % 100000))
net=10.$((64 + BASHPID / 250 % 64)).$((BASHPID % 250))
agent=$(mktemp)
cleanup() {
  ip netns del "${tag}a" 2> /dev/null
  ip netns del "${tag}b" 2> /dev/null
  rm -f "$agent"
}
trap cleanup EXIT

ip netns add "${tag}a" 2> /dev/null || skip "network namespaces are not allowed"
ip netns add "${tag}b" || skip "network namespaces are not allowed"
ip link add "${tag}1" type veth peer name "${tag}2" ||
  skip "virtual Ethernet is not allowed"
connect() { # namespace interface address
  ip link set "$2" netns "$1" && ip netns exec "$1" ip link set lo up &&
    ip netns exec "$1" ip addr add "$3/24" dev "$2" &&
    ip netns exec "$1" ip link set "$2" up
}
connect "${tag}a" "${tag}1" "$net.1" && connect "${tag}b" "${tag}2" "$net.2" ||
  exit 1

cat > "$agent" << END
#!/bin/bash
case \$1 in
  $net.1) host=${tag}a ;;
  $net.2) host=${tag}b ;;
esac
shift
# A host has a name of its own; Open MPI tells hosts apart by it.
exec ip netns exec \$host unshare --uts bash -c "hostname \$host; \$*"
END
chmod +x "$agent"

if [ -n "${CUT_AFTER:-}" ]; then
  (sleep "$CUT_AFTER" && ip netns exec "${tag}a" ip link set "${tag}1" down) &
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
ip netns exec "${tag}a" unshare --uts bash -c 'hostname "$0"; exec "$@"' "${tag}a" \
  mpirun --mca plm_rsh_agent "$agent" \
  --mca oob_tcp_if_include "$net.0/24" --mca btl_tcp_if_include "$net.0/24" \
  --mca oob_tcp_keepalive_time 2 --mca oob_tcp_keepalive_intvl 1 \
  --mca oob_tcp_keepalive_probes 3 --mca mpi_yield_when_idle 1 \
  --mca pml ob1 --mca btl tcp,vader,self --bind-to none --oversubscribe \
  -n $((2 * ranks_per_host)) \
  --host "$net.1:$ranks_per_host,$net.2:$ranks_per_host" \
  env ASAN_OPTIONS="${ASAN_OPTIONS:-}" OMP_NUM_THREADS=1 "$@"
