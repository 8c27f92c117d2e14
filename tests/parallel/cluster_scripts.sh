#!/bin/bash
# What launch/mpi_hosts.sh and launch/slurm.sbatch ask of mpirun and srun, which
# are replaced by programs that print it.
set -u
launch=$(cd "$(dirname "$0")/../../launch" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1

complain() {
  echo "cluster_scripts: $1"
  echo "$output"
  exit 1
}
expect() { # Each argument is a part of the output.
  for part in "$@"; do
    [[ $output == *"$part"* ]] || complain "missing: $part"
  done
}
mkdir bin
for name in mpirun srun lorica; do
  printf '#!/bin/bash\necho %s "$@"\n' $name > bin/$name
done
chmod +x bin/*
PATH=$folder/bin:$PATH

printf '# nodes\nalpha slots=4\nbeta # the second\n\nalpha\n' > hosts
output=$(OMP_PLACES=cores NETWORK=10.1.0.0/16 \
  "$launch/mpi_hosts.sh" hosts 3 bin/lorica train --config "a b")
expect "mpirun --hostfile hosts -n 6" "--map-by ppr:3:node" \
  "--mca oob_tcp_keepalive_time 5" "--mca btl_tcp_if_include 10.1.0.0/16" \
  "-x OMP_PLACES" "$folder/bin/lorica train --config a b"
output=$("$launch/mpi_hosts.sh" nowhere 3 bin/lorica 2>&1) && complain "went on"
expect "cannot read the host file nowhere"
output=$("$launch/mpi_hosts.sh" hosts 0 bin/lorica 2>&1) && complain "went on"
expect 'RANKS_PER_HOST is "0"'
output=$("$launch/mpi_hosts.sh" hosts 2 bin/none 2>&1) && complain "went on"
expect "there is no program"

export SLURM_SUBMIT_DIR=$folder SLURM_NTASKS_PER_NODE=4 SLURM_CPUS_PER_TASK=6
export LORICA=bin/lorica
output=$("$launch/slurm.sbatch" train)
expect "mpirun --map-by ppr:4:node:PE=6" "keepalive_time" "bin/lorica train"
printf '#!/bin/bash\n[[ $1 = --mpi=list ]] && echo "none pmix" || echo srun "$@"\n' \
  > bin/srun
output=$("$launch/slurm.sbatch" train)
expect "srun --mpi=pmix --export=ALL" "--cpus-per-task=6" "bin/lorica train"
output=$(LORICA=none "$launch/slurm.sbatch" train 2>&1) && complain "went on"
expect "there is no program"
echo "cluster_scripts: passed"
