#include "tests/support/cuda_sim/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>

#include "runtime/check.h"

// Present where the address sanitizer is.
extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** fake_stack,
                                                          const void* bottom,
                                                          size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(
    void* fake_stack, const void** old_bottom, size_t* old_size);
__attribute__((weak)) void __asan_unpoison_memory_region(
    const volatile void* data, size_t size);
// Saves the callee's registers and the stack pointer, and takes up another
// stack where it left off.
void lorica_switch_stack(void** save, void* load);
}

asm(R"(
.text
.globl lorica_switch_stack
.type lorica_switch_stack, @function
lorica_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size lorica_switch_stack, .-lorica_switch_stack
)");

namespace lorica::cuda_sim {
namespace {

constexpr size_t kSavedRegisters = 6;
// More than the functions take that a finished fiber never returns from.
constexpr size_t kLastFrameBytes = 4096;

// Whom Enter is for: set just before the first switch to a fiber.
Fiber* starting = nullptr;

}  // namespace

Fiber::Fiber() {
  void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(stack != MAP_FAILED) << "no memory for a fiber's stack";
  stack_ = static_cast<char*>(stack);
}

Fiber::~Fiber() { munmap(stack_, kStackBytes); }

void Fiber::Reset(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
  fake_stack_ = nullptr;
  // Functions that have returned left their part of the stack as it was.
  if (__asan_unpoison_memory_region != nullptr) {
    const size_t bytes = left_midway_ ? kStackBytes : kLastFrameBytes;
    __asan_unpoison_memory_region(stack_ + kStackBytes - bytes, bytes);
  }
  left_midway_ = true;
  // As though Enter had been called, with a null return address, and its
  // caller's registers saved.
  auto** top = reinterpret_cast<void**>(stack_ + kStackBytes - 64);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&Fiber::Enter);
  top -= kSavedRegisters;
  std::memset(top, 0, kSavedRegisters * sizeof(void*));
  stack_pointer_ = top;
}

void Fiber::Resume() {
  starting = this;
  if (__sanitizer_start_switch_fiber != nullptr) {
    __sanitizer_start_switch_fiber(&caller_fake_stack_, stack_, kStackBytes);
  }
  lorica_switch_stack(&caller_stack_pointer_, stack_pointer_);
  if (__sanitizer_finish_switch_fiber != nullptr) {
    __sanitizer_finish_switch_fiber(caller_fake_stack_, nullptr, nullptr);
  }
}

void Fiber::Enter() {
  Fiber* self = starting;
  if (__sanitizer_finish_switch_fiber != nullptr) {
    __sanitizer_finish_switch_fiber(nullptr, &self->caller_stack_,
                                    &self->caller_stack_bytes_);
  }
  self->entry_(self->argument_);
  self->Finish();
}

void Fiber::GoBack(void** keep) {
  if (__sanitizer_start_switch_fiber != nullptr) {
    __sanitizer_start_switch_fiber(keep, caller_stack_, caller_stack_bytes_);
  }
  lorica_switch_stack(&stack_pointer_, caller_stack_pointer_);
}

void Fiber::Yield() {
  GoBack(&fake_stack_);
  if (__sanitizer_finish_switch_fiber != nullptr) {
    __sanitizer_finish_switch_fiber(fake_stack_, &caller_stack_,
                                    &caller_stack_bytes_);
  }
}

void Fiber::Finish() {
  left_midway_ = false;
  GoBack(nullptr);
  __builtin_trap();
}

bool Fiber::OnStack(const void* data, size_t bytes) const {
  const auto* begin = static_cast<const char*>(data);
  return stack_ <= begin && begin + bytes <= stack_ + kStackBytes;
}

}  // namespace lorica::cuda_sim
