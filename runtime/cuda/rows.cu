#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"

namespace lorica::cuda {
namespace {

// Bits that move together: an element, or 16 bytes.
template <int kN, typename T>
struct RawPack;
template <>
struct RawPack<1, float> {
  uint32_t bits;
};
template <>
struct RawPack<1, bf16> {
  uint16_t bits;
};
template <>
struct RawPack<kWidePack, float> {
  uint4 bits[2];
};
template <>
struct RawPack<kWidePack, bf16> {
  uint4 bits;
};

// Elements move as they are, whatever NaN they may be.
template <int kN, typename T>
__device__ void CopyPack(const T* from, T* to) {
  *reinterpret_cast<RawPack<kN, T>*>(to) =
      *reinterpret_cast<const RawPack<kN, T>*>(from);
}

template <typename T>
struct GatherOp {
  GatherRowsArgs args;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    const int64_t from = args.ids.As<const int32_t>()[row] - args.first_row;
    T* to = args.y.Row<T>(row) + col;
    if (0 <= from && from < args.table.rows) {
      CopyPack<kN>(args.table.Row<const T>(from) + col, to);
    } else {
      Store(Pack<kN>{}, to);
    }
  }
};

template <typename T>
struct ScatterOp {
  ScatterRowsArgs args;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    const int64_t to = args.ids.As<const int32_t>()[row];
    CopyPack<kN>(args.x.Row<const T>(row) + col, args.y.Row<T>(to) + col);
  }
};

}  // namespace

void GatherRows(Queue* queue, const GatherRowsArgs& args) {
  ForElements<GatherOp>(queue, {args.y, args.table}, args);
}

void ScatterRows(Queue* queue, const ScatterRowsArgs& args) {
  Fill(queue, args.y, 0.0f);
  ForElements<ScatterOp>(queue, {args.x, args.y}, args);
}

}  // namespace lorica::cuda
