// The memory that a pass takes for activations, known before it runs.
#ifndef LORICA_MODEL_PASS_MEMORY_H_
#define LORICA_MODEL_PASS_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "model/adapter.h"
#include "model/gpt.h"
#include "model/pass.h"
#include "model/recompute.h"
#include "runtime/allocator.h"
#include "runtime/dry_run.h"

namespace lorica {

// What Gpt::Train takes of `device`, beside losses in memory of the caller's,
// for a pass of such rows: by a dry run of it, so by the same code. No other
// rank is asked. `device` is the model's and the adapter's.
MemoryPlan PlanPass(const Gpt& gpt, const Adapter& adapter, Recompute recompute,
                    const TrainingRows& rows, Device* device);

// Enough for passes of up to `tokens` tokens, rounded up to kRowMultiple: the
// most of those with a target in every row, and in one sixteenth of them to
// fifteen. The first takes most unless blocks are computed again; then others
// may take some percent more. A pass in between may find its arrays placed less
// well, by less than a percent of the whole. One of fewer tokens takes less.
MemoryPlan PlanPassesUpTo(int64_t tokens, const Gpt& gpt,
                          const Adapter& adapter, Recompute recompute,
                          Device* device);

// Whether all ranks of the group made the same plans: asked for the same, in
// the same order and places. All of them call it.
bool AllPlanAlike(const std::vector<MemoryPlan>& plans, Communicator& group);

// One block of memory for the activations of passes, one pass after another. A
// pass that it is too small for takes more of the device, which is kept.
class PassMemory {
 public:
  // With a group, all ranks of which call it, memory that the group's
  // collectives work on without a copy, if each has as much of that as its plan
  // wants; else, and where `group` is null, the device's. A library may rely on
  // finding what the ranks give it at the same place of such memory, and in it
  // on all of them or none: the plans of all passes are alike. Null where the
  // device has not as much in one piece. It must go before the group.
  static std::unique_ptr<PassMemory> Take(const MemoryPlan& plan,
                                          Device* device, Communicator* group);
  // No activation is left.
  ~PassMemory();
  PassMemory(const PassMemory&) = delete;
  PassMemory& operator=(const PassMemory&) = delete;

  Allocator* allocator() { return allocator_.get(); }
  // Whether the group's collectives need no copy of it.
  bool registered() const { return registered_.present(); }

 private:
  PassMemory(const MemoryPlan& plan, Device* device, Tensor registered,
             void* block);

  Device* device_;
  Tensor registered_;  // Absent: block_ is the device's.
  void* block_;
  size_t bytes_;
  std::unique_ptr<Allocator> allocator_;
};

// While it lives, new tensors of `device` are activations and lie in memory of
// `activations`; null: where they lay before.
class ActivationScope {
 public:
  ActivationScope(Device* device, Allocator* activations)
      : scope_(device,
               activations != nullptr ? activations : &device->allocator()) {}

 private:
  Device::Scope scope_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_PASS_MEMORY_H_
