// Matrix products: cuBLASLt's.
#ifndef LORICA_RUNTIME_CUDA_MATMUL_H_
#define LORICA_RUNTIME_CUDA_MATMUL_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

#include "runtime/backend.h"

namespace lorica::cuda {

class ProductChoices;

// What a plan depends on: everything but the addresses' upper bits and the
// scale.
struct MatmulKey {
  MatmulForm form;
  DType operand;
  DType result;
  Update update;
  bool biased;
  int64_t m;
  int64_t n;
  int64_t k;
  int64_t a_stride;
  int64_t b_stride;
  int64_t y_stride;
  // The largest power of two that divides the address and the stride in bytes.
  int a_alignment;
  int b_alignment;
  int y_alignment;

  friend auto operator<=>(const MatmulKey&, const MatmulKey&) = default;
};

// The library's answers for the latest kCapacity shapes: asking takes tens of
// microseconds, as long as a small product. Operands F32 or BF16, accumulation
// and scale in F32; where a product is split over K, the parts are added in F32
// in a fixed order.
//
// With measured choices, the algorithm of a shape is the file's. One that is
// missing there is measured where they say so: the first product of a shape
// then waits for the stream and takes memory for a second result; where there
// is none, the library's proposal stays.
class MatmulPlans {
 public:
  static constexpr size_t kCapacity = 1024;
  // What Hopper and later ask for; earlier devices use less of it.
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

  MatmulPlans();
  ~MatmulPlans();
  MatmulPlans(const MatmulPlans&) = delete;
  MatmulPlans& operator=(const MatmulPlans&) = delete;

  static size_t LibraryVersion();
  // Before the first product.
  void UseChoices(std::unique_ptr<ProductChoices> choices);
  // M, N and K are positive. Enqueues on the queue's stream.
  void Run(Queue* queue, const MatmulArgs& args);
  size_t size() const { return plans_.size(); }

 private:
  struct Library;
  struct Plan;

  Plan& Find(Queue* queue, const MatmulArgs& args);
  void Choose(Queue* queue, const MatmulArgs& args, const MatmulKey& key,
              Plan* plan);
  // Keeps the fastest of the plan's candidates, the first of equals.
  void Measure(Queue* queue, const MatmulArgs& args, const MatmulKey& key,
               Plan* plan);

  std::unique_ptr<Library> library_;
  std::unique_ptr<ProductChoices> choices_;
  std::map<MatmulKey, std::unique_ptr<Plan>> plans_;
  uint64_t uses_ = 0;
};

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_MATMUL_H_
