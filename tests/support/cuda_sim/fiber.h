// Threads that yield to each other only when told to: each has a stack of its
// own and runs on the calling system thread.
#ifndef LORICA_TESTS_SUPPORT_CUDA_SIM_FIBER_H_
#define LORICA_TESTS_SUPPORT_CUDA_SIM_FIBER_H_

#include <cstddef>

namespace lorica::cuda_sim {

// Not copied or moved once started, as its stack knows its address.
class Fiber {
 public:
  static constexpr size_t kStackBytes = size_t{256} << 10;

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the fiber begin with entry(argument) when it is next resumed. The
  // entry must end by Finish and not return.
  void Reset(void (*entry)(void*), void* argument);
  // Runs the fiber until it yields or finishes.
  void Resume();
  // Called on the fiber: goes back to who resumed it, for now or for good.
  void Yield();
  [[noreturn]] void Finish();

  bool OnStack(const void* data, size_t bytes) const;

 private:
  static void Enter();
  void GoBack(void** keep);

  char* stack_;
  bool left_midway_ = true;
  void* stack_pointer_ = nullptr;
  void* caller_stack_pointer_ = nullptr;
  // The address sanitizer's names for the two stacks.
  void* fake_stack_ = nullptr;
  void* caller_fake_stack_ = nullptr;
  const void* caller_stack_ = nullptr;
  size_t caller_stack_bytes_ = 0;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
};

}  // namespace lorica::cuda_sim

#endif  // LORICA_TESTS_SUPPORT_CUDA_SIM_FIBER_H_
