#!/bin/bash
# Breaks the code in the ways that go wrong silently, one at a time, and
# requires a named test to see each. Works on a copy of the last commit under
# build/mutations; takes as long as a build.
#
#   tests/mutations.sh [PATTERN]      only mutations whose line matches
#   tests/mutations.sh --check        builds nothing: whether each mutation still
#                                     changes its file and has its test
set -u
cd "$(dirname "$0")/.." || exit 1
root=$PWD

# What is wrong | file | sed expression | test binary | tests that must fail
table() {
  cat << 'END'
replicated factor's tensor sum forgotten|parallel/grad_sync.cc|s/SumShared(&shared);/static_cast<void>(shared);/|parallel_grad_sync_test|GradSyncTest.EveryTermIsAddedOnce
A taken for invariant|parallel/shard_spec.cc|s/return {Replicated(), Sharded(0/return {Invariant(), Sharded(0/|parallel_shard_spec_test|ShardSpecTest.AdaptersFollowTheirWeight
shared key and value slices not summed|parallel/shard_spec.cc|s/if (mine.size() == 0) return rank;/return rank;/|parallel_grad_sync_test|GradSyncTest.EveryTermIsAddedOnce
tensor ranks summed before data ranks|parallel/grad_sync.cc|s/^  for (Shared& shared : shared_) SumShared(&shared);$//;s/  data_->StartAll/  for (Shared\& shared : shared_) SumShared(\&shared);\n&/|parallel_grad_sync_test|GradSyncTest.DataRanksAndAccumulationChangeNoBit
sum in order of arrival|parallel/communicator.cc|s/    combine(received,/    std::vector<const void*> late(received); std::rotate(late.begin(), late.begin() + rank(), late.end()); combine(late,/|parallel_local_communicator_test|*SumsFollowTheTree*
sum from left to right|parallel/tree_sum.h|s/while (2 \* power < count) power \*= 2;/power = count - 1;/|parallel_tree_sum_test|TreeSumTest.NumberOfRanksChangesNoBit
one slot instead of two|parallel/shared_transport.cc|s/calls_ % 2/calls_ * 0/|parallel_local_communicator_test|*CollectivesFollowEachOtherClosely*
no wait for the peers|parallel/shared_transport.cc|s/step < size(); ++step/step < 1; ++step/|parallel_local_communicator_test|*AllReduceSumIsExact*
BF16 rounded down|parallel/reduce.cc|s/word + 0x7fffu + ((word >> 16) \& 1u)/word/|parallel_reduce_test|ReduceTest.BFloat16RoundsAsItsConversion
backward not the dual|parallel/layout.cc|s/{Dual(transition.to), Dual(transition.from)}/transition/|parallel_layout_test|*BackwardOfATransitionIsTheDualTransition*
subgroup ignores the key|parallel/communicator.cc|s/a.key < b.key/false/|parallel_local_communicator_test|*SubgroupsTalkAmongThemselves*
traffic of a lone rank counted|parallel/communicator.cc|s/if (size() == 1) return;//|parallel_local_communicator_test|*TrafficIsCountedByPurpose*
highest failing rank speaks|parallel/agreement.cc|s/mine.ok() ? 0 : group.size() - group.rank()/mine.ok() ? 0 : 1/|parallel_agreement_test|AgreementTest.NobodyFailsAlone
watchdog sleeps|parallel/watchdog.cc|s/if (waited < timeout_) continue;/if (waited < absl::Hours(1)) continue;/|parallel_watchdog_test|WatchdogDeathTest.*
watchdog takes many calls for one|parallel/watchdog.cc|s/ .. begun_ != seen//|parallel_watchdog_test|WatchdogTest.CollectivesThatEndAreLeftAlone
replicas not compared|parallel/replicas.cc|s/hashes\[peer\] != common/false/|parallel_replicas_test|ReplicasTest.*
uneven slices overlap|parallel/shard_spec.cc|s/rank \* each + std::min<int64_t>(rank, longer)/rank * each/|parallel_shard_spec_test|ShardSpecTest.SlicesTileTheWhole
mesh axes swapped|parallel/mesh.cc|s/rank \/ config.tensor, rank/rank % config.tensor, rank/|parallel_mesh_test|MeshTest.TensorRanksAreNeighbours
dropout seeded by rank|launch/train/trainer.cc|s/static_cast<uint64_t>(config_.train.seed));/static_cast<uint64_t>(config_.train.seed + session_.mesh().world().rank()));/|model_parallel_meshes_test|MeshesTest.DataRanksAndAccumulationChangeNoBit
dropout by index within the slice|model/adapter.cc|s/linear->first_input = a_slice.cols.begin;/linear->first_input = 0;/|model_parallel_meshes_test|MeshesTest.EveryMeshTrainsAsOneRankWithinTheRoundingBound
initial values by index within the slice|model/adapter.cc|s/(r \* inputs + c);/(r * inputs + c - factor.slice.cols.begin);/|model_adapter_test|AdapterTest.InitialValuesAreTheSameOnEveryMesh
initial bound from the slice's inputs|model/adapter.cc|s/inputs = factor.shape\[1\];/inputs = factor.slice.cols.size();/|model_adapter_test|AdapterTest.InitialValuesAreTheSameOnEveryMesh
fused layer's factor cut in its first section alone|model/adapter.cc|s/SectionOf(first, section, rows)/SectionOf(first, 0 * section, rows)/|model_adapter_test|AdapterTest.AFusedLayersFactorIsCutInEachSection
summed layer's bias on every rank|model/params.cc|s/Range{outputs, outputs});/Range{0, outputs});/|model_gpt_golden_test|*GptGoldenTest.*heads_7_gpt2*
learned positions on every rank|model/params.cc|s/Sharded(0, split.positions)/Invariant()/|model_gpt_golden_test|*GptGoldenTest.*heads_7_gpt2*
transposed weights taken as they lie|model/weight_source.cc|s/from = block.data() + o;/from = block.data() + o * count;/;s/from\[i \* outputs\]/from[i]/|model_families_gpt2_test|Gpt2WeightsTest.SlicesAreThoseOfTheTransposedFile
dX of a column-parallel layer not summed|model/plans.h|s/{Layout::kInvariant, Layout::kReplicated}/Stay(Layout::kInvariant)/|model_parallel_meshes_test|MeshesTest.EveryMeshTrainsAsOneRankWithinTheRoundingBound
replicated factor's sum forgotten in training|parallel/grad_sync.cc|s/SumShared(&shared);/static_cast<void>(shared);/|model_parallel_meshes_test|MeshesTest.EveryMeshTrainsAsOneRankWithinTheRoundingBound
A taken for invariant in training|parallel/shard_spec.cc|s/return {Replicated(), Sharded(0/return {Invariant(), Sharded(0/|model_parallel_meshes_test|MeshesTest.EveryMeshTrainsAsOneRankWithinTheRoundingBound
a sum of its own for x A'|model/layers/lora_linear.cc|s/const bool kept = keep/Tensor sum = ops::Convert(result.xa, DType::kF32); group_->AllReduceSum(\&sum, Purpose::kActivation); &/|model_parallel_traffic_test|TrafficTest.AnAdapterAddsNoCollectiveAndNoByteToAMicroBatch
a started sum follows nothing|parallel/nccl_communicator.cc|/^void NcclGroup::StartAllReduceSum/,/^}/s/  Follow(tensor);//|parallel_nccl_communicator_test|NcclCommunicatorTest.StartedSumsAreThereOnceJoined
nothing follows a started sum|parallel/nccl_communicator.cc|/^void NcclGroup::JoinSums/,/^}/s/  Order(.*/  static_cast<void>(device);/|parallel_nccl_communicator_test|NcclCommunicatorTest.StartedSumsAreThereOnceJoined
the queue waits for a started sum|parallel/nccl_communicator.cc|/^void NcclGroup::StartAllReduceSum/,/^}/s/^}/  Order(stream_, StreamOf(tensor), end_); }/|parallel_nccl_communicator_test|NcclCommunicatorTest.WorkGivenAfter*
registration outlives its memory|parallel/nccl_connection.cc|s/    if (!connection_->closed()) {/    if (false) {/|parallel_nccl_communicator_test|NcclCommunicatorTest.MemoryForSumsIsRegistered
ranks register each for itself|parallel/communicator.cc|s/  AllReduceMax(absl::MakeSpan(without), Purpose::kControl);//|parallel_nccl_communicator_test|NcclCommunicatorTest.AllRanksRegisterOrNone
a replay counts nothing|parallel/communicator.cc|s/traffic_\[i\] += calls.traffic\[i\];/static_cast<void>(i);/|parallel_nccl_communicator_test|NcclCommunicatorTest.RecordedCollectives*
a replay is not watched|parallel/communicator.cc|s/watchdog_->Follow(device_->WorkOf(device));/static_cast<void>(device);/|parallel_nccl_communicator_test|NcclCommunicatorDeathTest.AReplay*
layers told of after the pass|model/pass_recordings.cc|s/    if (part < done.layers.size()) done/    if (part + 1 == recorded->parts.size()) for (part = 0; part < done.layers.size(); ++part) done/|launch_cuda_step_graphs_test|StepGraphsTest.LayersAreToldOf*
end of a reserve taken for a hole|runtime/allocator.cc|s/if (data + bytes == top) {/if (data == nullptr) {/|runtime_allocator_test|AllocatorTest.AReserve*
passes not planned before a run|launch/train/train_run.cc|s/PlanPasses(config, data->train, session, \*gpt, \*adapter)/absl::StatusOr<PlannedPasses>(PlannedPasses())/|launch_cuda_pass_planning_test|PlannedRunTest.ARunThatDoesNotFit*
ranks of uneven splits register activations|model/pass_memory.cc|s/return other == mine; }/return !other.empty(); }/|launch_cuda_pass_memory_test|PassPlanningTest.MemoryIsRegistered*
ranks whose shapes differ record together|model/pass_recordings.cc|s/if (other == mine) continue;/if (!other.empty()) continue;/|launch_cuda_step_graphs_test|StepGraphsTest.TensorRanksThat*
tensors of recorded work where others lie|parallel/recorded_work.cc|s/scope(device_, by_.memory);/scope(device_, \&device_->allocator());/|parallel_recorded_work_test|*ItsTensorsLieWhereTheyLayAtFirst*
sums of a group of their own recorded|parallel/grad_sync.cc|s/  if (subgroups_.empty()) finish_ =/  finish_ =/|launch_cuda_step_graphs_test|StepGraphsTest.*TensorRanksShareHeads
an update with the numbers of another step|launch/train/trainer.cc|s/  adamw_numbers_.CopyFrom(&numbers);/  if (step < 2) adamw_numbers_.CopyFrom(\&numbers);/|launch_train_trainer_test|*TwentyStepsFollowPeft*
products in a border taken one by one|runtime/cuda/lora.cc|s/if (whole.has_value()) joined.parts/if (false) joined.parts/|runtime_cuda_backend_test|*CudaBorderTest.IsOneProduct*
a border as wide as its ranks|model/layers/weight_stack.cc|s/return (ranks + kRankUnit - 1)[^;]*;/return ranks;/|model_adapter_test|AdapterTest.WhatMoved*
gradients side by side multiplied apart|runtime/cuda/lora.cc|s/if (!Grow(sum.form, sum.frozen\[i\], &sum.frozen\[last\]))/if (true)/|runtime_cuda_backend_test|*CudaBorderTest.IsOneProduct*
the adapter's share of dx multiplied apart|runtime/cuda/lora.cc|s/Grow(sum.form, sum.adapter, &sum.frozen\[last\])/false/|runtime_cuda_backend_test|*CudaBorderTest.IsOneProduct*
another adapter taken for the border's|runtime/cuda/lora.cc|/const int64_t col/,/}/s/return std::nullopt;/continue;/|launch_cuda_trainer_test|CudaTrainerTest.AResident*
no zeros between the parts of a border|model/layers/weight_stack.cc|s/ops::Fill(0.0f, &border);/static_cast<void>(border);/|model_adapter_test|AdapterTest.WhatMoved*
xa keeps an input that is computed again|model/layers/lora_linear.cc|s/result.xa.dense()/true/|model_layers_lora_linear_test|LoraLinearTest.AnInput*
nothing lies in a border|model/gpt.cc|s/if (adapted) resident->MoveInto/if (false) resident->MoveInto/|launch_cuda_trainer_test|CudaTrainerTest.AResident*
no room beside the gradient of the stream|model/gpt.cc|s/GradRoom(adapter), losses/0, losses/|launch_cuda_trainer_test|CudaTrainerTest.AResident*
losses read chunk by chunk|model/layers/loss.cc|s/    ops::LogitGrad(kept, stats/    static_cast<void>(stats.ToHost<float>());\n&/|launch_cuda_trainer_test|CudaTrainerTest.OneRankWaits*
statistics of tensor ranks merged on the host|model/layers/loss.cc|s/AllGatherRows(slice, rows/AllGatherRows(Tensor::FromHost<float>(h.device(), slice.shape(), slice.ToHost<float>()), rows/|launch_cuda_trainer_test|CudaTrainerTest.TensorRanks*
gradients summed every micro-batch|parallel/grad_sync.cc|s/^  if (step.level >= 0) ops::Fill/  data_->AllReduceSum(\&grads_, Purpose::kAdapterGrad);\n&/|model_parallel_traffic_test|TrafficTest.AStepSumsAdapterGradientsOnceWhateverTheAccumulation
replicas drift unseen|parallel/grad_sync.cc|s/  for (const Shared& shared : shared_) verify(.*/  static_cast<void>(shared_);/|parallel_grad_sync_test|GradSyncTest.AReplicaThatDiffersIsNamedWhereItIsShared
threads for every core of the host|parallel/cpu_share.cc|s/std::max<std::ptrdiff_t>(1, sharers)/1/|parallel_cpu_share_test|CpuShareTest.AChosenBindingIsKept
tensor groups torn apart|parallel/mesh.cc|s/return gains ? order : same;/return same;/|parallel_mesh_test|MeshTest.TensorGroupsStayOnAHostWhereTheyFit
second moments not loaded|launch/state/adapter_state.cc|s/    for (const FlatArray& array : kArrays) {/    for (const FlatArray\& array : kArrays) {\n      if (\&array == \&kArrays[2]) continue;/|launch_state_saved_state_test|SavedStateTest.EveryRankOfAnyMeshFindsItsSlices
slices that several ranks hold saved by each|launch/state/adapter_state.cc|/FirstHolder(factor.shard, rank) != rank/d|launch_state_saver_test|SaverTest.EveryElementIsWrittenOnce
elements not verified|launch/state/saved_state.cc|s/Checksum(stored.bytes) != piece.checksum/false/|launch_state_saved_state_test|SavedStateTest.AThousand*
header not verified|launch/state/saved_state.cc|s/shard.header_checksum) {/shard.header_checksum and false) {/|launch_state_saved_state_test|SavedStateTest.AThousand*
manifest not verified|launch/state/manifest.cc|s/rest.substr(0, kDigits) != Checksum(rest.substr(kDigits))/false/|launch_state_saved_state_test|SavedStateTest.AThousand*
other columns read|launch/state/saved_state.cc|s/cols.begin - piece.slice.cols.begin;/cols.begin - cols.begin;/|launch_state_saved_state_test|SavedStateTest.EveryRankOfAnyMeshFindsItsSlices
failed stage goes unheard|parallel/staged_work.cc|s/all = Agree(mine.status(), \*group_);/all;/;s/AllGatherBytes(\*mine,/AllGatherBytes(mine.value_or(""),/|launch_state_saver_test|SaverTest.AFullDiskCostsOneSave
latest before the save is in place|launch/state/saver.cc|s/LORICA_RETURN_IF_ERROR(target->Commit());/LORICA_RETURN_IF_ERROR(WriteFileAtomically(partial + "\/..\/latest", StepName(report.step) + "\\n")); LORICA_RETURN_IF_ERROR(target->Commit());/|launch_state_saver_test|SaverTest.AFailingSyncCostsOneSave
saves of an older run are the newest|launch/state/checkpoint.cc|s/std::tuple(a <= newest, a) < std::tuple(b <= newest, b)/a < b/|launch_state_saver_test|SaverTest.SavesOfLaterSteps*
every M-th save goes too|launch/state/checkpoint.cc|/step % each == 0/d|launch_state_saver_test|SaverTest.TheNewestAndEveryMthAreKept
batch that was bad taken again|launch/train/trainer.cc|s/position_.step + 1 + position_.skipped_batches/position_.step + position_.skipped_batches/|launch_train_stop_test|TrainerAnomalyTest.RollBack*
values not rolled back|launch/train/trainer.cc|s/adapter_->values()->CopyFrom(backup_/if (false) adapter_->values()->CopyFrom(backup_/|launch_train_stop_test|TrainerAnomalyTest.RollBack*
wish to stop not shared|launch/train/trainer.cc|s/result.stop_wish = maxima\[1\]/result.stop_wish = events.stop_wish ? 0 : maxima[1]/|launch_train_stop_test|TrainerStopTest.*
a change of the seed goes unseen|launch/state/resume.cc|s/if (now != then) return/if (false) return/|launch_train_resume_test|ChooseSaveTest.AChange*
records not compared|launch/state/resume.cc|s/run.data_checksum != saved.data_checksum/false/|launch_train_resume_test|ChooseSaveTest.RecordsMayMove*
resumed one step early|launch/train/trainer.cc|s/      activations_(activations) {/& if (position_.step > 0) --position_.step;/|launch_train_resume_test|*GoesOnFromWhateverMeshSaved*
END
}

# Calls "$1" with the fields of each mutation that "$2" matches; the number of
# calls that fail.
count_failures() {
  local failures=0 what file expression target tests
  while IFS='|' read -r what file expression target tests; do
    [[ "$what $file $target" =~ $2 ]] || continue
    "$1" "$what" "$file" "$expression" "$target" "$tests" < /dev/null ||
      failures=$((failures + 1))
  done < <(table)
  return "$failures"
}

check() {
  local what=$1 file=$2 expression=$3 part
  if sed "$expression" "$file" | cmp -s - "$file"; then
    echo "STALE     $what: nothing to change in $file"
    return 1
  fi
  # Suites and names, without the stars.
  for part in $(tr '.*' '  ' <<< "$5"); do
    if ! grep -qr --exclude=mutations.sh "$part" tests; then
      echo "STALE     $what: no test $part"
      return 1
    fi
  done
}

# Where the build put a test of a folder, at whatever depth.
binary_of() { find "$build/tests" -type f -name "$1" -perm -u+x; }

mutate() {
  local what=$1 file=$2 expression=$3 target=$4 tests=$5 failed=0
  sed -i "$expression" "$copy/$file"
  if git -C "$copy" diff --quiet; then
    echo "STALE     $what: nothing to change in $file"
    failed=1
  elif ! cmake --build "$build" --target "$target" > "$build/log" 2>&1; then
    echo "BROKEN    $what: does not compile, see $build/log"
    failed=1
  elif (cd "$copy" && OMP_NUM_THREADS=1 timeout 300 "$(binary_of "$target")" \
    --gtest_filter="$tests") > "$build/log" 2>&1; then
    echo "SURVIVED  $what: $tests passes"
    failed=1
  else
    echo "killed    $what: by $tests"
  fi
  git -C "$copy" checkout --quiet -- .
  return "$failed"
}

if [[ ${1:-} == --check ]]; then
  count_failures check .
  exit
fi

copy=$root/build/mutations/source
build=$root/build/mutations/build
rm -rf "$copy"
git worktree prune
git worktree add --detach --force "$copy" HEAD > /dev/null || exit 1
trap 'git -C "$root" worktree remove --force "$copy"' EXIT
cmake -S "$copy" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_CXX_FLAGS=-O1 > /dev/null || exit 1
count_failures mutate "${1:-.}"
survivors=$?
echo "$survivors mutations survived"
exit $((survivors > 0))
