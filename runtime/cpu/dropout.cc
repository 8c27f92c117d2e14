#include <cmath>
#include <cstdint>

#include "runtime/cpu/dispatch.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"
#include "runtime/random.h"

namespace lorica::cpu {
namespace {

constexpr uint64_t kWordsPerBlock = 4;

// Words `first` .. `first` + count - 1 of the field, a block at a time.
template <typename Body>
void ForWords(const RandomField& field, uint64_t first, int64_t count,
              const Body& body) {
  int64_t i = 0;
  while (i < count) {
    const uint64_t index = first + static_cast<uint64_t>(i);
    const PhiloxBlock block =
        Philox(field.seed, field.stream, index / kWordsPerBlock);
    for (uint64_t word = index % kWordsPerBlock;
         word < kWordsPerBlock && i < count; ++word, ++i) {
      body(i, block.words[word]);
    }
  }
}

template <typename T>
void DropoutRow(const DropoutArgs& args, int64_t row) {
  const T* x = args.x.Row<const T>(row);
  T* y = args.y.Row<T>(row);
  const auto threshold =
      static_cast<uint64_t>(std::ceil(double{args.p} * 0x1p32));
  const float scale = 1.0f / (1.0f - args.p);
  const int64_t first =
      args.row_index.As<const int64_t>()[row] * args.row_elements +
      args.first_col;
  ForWords(args.field, static_cast<uint64_t>(first), args.x.cols,
           [&](int64_t i, uint32_t word) {
             const bool keep = word >= threshold;
             float value = keep ? static_cast<float>(x[i]) * scale : 0.0f;
             if (args.update == Update::kAdd) value += static_cast<float>(y[i]);
             y[i] = T(value);
           });
}

}  // namespace

void Dropout(Queue* queue, const DropoutArgs& args) {
  ParallelRows(*queue, args.x.rows, args.x.cols, [&](Range rows) {
    DispatchFloat(args.x.dtype, [&](auto t) {
      for (int64_t row = rows.begin; row < rows.end; ++row) {
        DropoutRow<decltype(t)>(args, row);
      }
    });
  });
}

}  // namespace lorica::cpu
