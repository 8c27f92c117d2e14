#include <cmath>
#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"
#include "runtime/random.h"

namespace lorica::cuda {
namespace {

// The multiplication and the addition round apart, as those of the CPU do: the
// results are equal bit for bit.
template <typename T>
struct DropoutOp {
  DropoutArgs args;
  uint32_t threshold;  // Elements of smaller words are dropped.
  float scale;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    Pack<kN> pack = Load<kN>(args.x.Row<const T>(row) + col);
    const auto first = static_cast<uint64_t>(
        args.row_index.As<const int64_t>()[row] * args.row_elements +
        args.first_col + col);
    PhiloxBlock words = {};
    for (int i = 0; i < kN; ++i) {
      const uint64_t word = first + static_cast<uint64_t>(i);
      if (i == 0 || word % 4 == 0) {
        words = Philox(args.field.seed, args.field.stream, word / 4);
      }
      const bool keep = Chosen(words, word % 4) >= threshold;
      pack.v[i] = keep ? __fmul_rn(pack.v[i], scale) : 0.0f;
    }
    T* to = args.y.Row<T>(row) + col;
    if (args.update == Update::kAdd) {
      const Pack<kN> before = Load<kN>(to);
      for (int i = 0; i < kN; ++i) {
        pack.v[i] = __fadd_rn(pack.v[i], before.v[i]);
      }
    }
    Store(pack, to);
  }

 private:
  // Without an index, so that the words stay in registers.
  __device__ static uint32_t Chosen(const PhiloxBlock& block, uint64_t word) {
    const uint32_t low = word == 0 ? block.words[0] : block.words[1];
    const uint32_t high = word == 2 ? block.words[2] : block.words[3];
    return word < 2 ? low : high;
  }
};

}  // namespace

void Dropout(Queue* queue, const DropoutArgs& args) {
  // An element is dropped if its word is below p 2^32, which need not be an
  // integer. p is less than one, so 32 bits hold the next one.
  const auto threshold =
      static_cast<uint32_t>(std::ceil(double{args.p} * 0x1p32));
  const float scale = 1.0f / (1.0f - args.p);
  DispatchFloat(args.x.dtype, [&]<typename T>() {
    DispatchPack({args.x, args.y}, [&]<int kN>() {
      ForPacks<kN>(queue, args.x.rows, args.x.cols,
                   DropoutOp<T>{args, threshold, scale});
    });
  });
}

}  // namespace lorica::cuda
