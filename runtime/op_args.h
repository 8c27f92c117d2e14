// What the files of ops.h check and make their arguments of.
#ifndef LORICA_RUNTIME_OP_ARGS_H_
#define LORICA_RUNTIME_OP_ARGS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/backend.h"
#include "runtime/check.h"
#include "runtime/tensor.h"

namespace lorica::ops {

inline const Backend& BackendOf(const Tensor& t) {
  return t.device()->backend();
}
inline Queue* QueueOf(const Tensor& t) { return t.device()->queue(); }

inline bool IsFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16;
}

inline Tensor Like(const Tensor& t, int64_t rows, int64_t cols) {
  return Tensor::Empty(t.device(), {rows, cols}, t.dtype());
}

inline Tensor LikeWithRoom(const Tensor& t, int64_t rows, int64_t cols,
                           int64_t room) {
  return Tensor::WithRoom(t.device(), {rows, cols}, t.dtype(), room);
}

inline Tensor Like(const Tensor& t) {
  return Tensor::Empty(t.device(), t.shape(), t.dtype());
}

inline void CheckSame(const Tensor& a, const Tensor& b) {
  CHECK_EQ(a.shape(), b.shape());
  CHECK_EQ(a.dtype(), b.dtype());
  CHECK(a.device() == b.device());
}

inline void CheckShape(const Tensor& t, Shape shape, DType dtype) {
  CHECK(t.present());
  CHECK_EQ(t.shape(), shape);
  CHECK_EQ(t.dtype(), dtype);
}

template <typename T>
ArrayView<T> ArrayOf(const std::vector<T>& values) {
  return {values.data(), static_cast<int64_t>(values.size())};
}

template <typename T>
ArrayView<T> ArrayOf(absl::Span<const T> values) {
  return {values.data(), static_cast<int64_t>(values.size())};
}

// Matrices that a linear layer multiplies as one where the device wants it:
// then side by side, with room beside the last.
std::vector<Tensor> SideBySide(const Tensor& like, int64_t rows,
                               absl::Span<const int64_t> cols, int64_t room);

}  // namespace lorica::ops

#endif  // LORICA_RUNTIME_OP_ARGS_H_
