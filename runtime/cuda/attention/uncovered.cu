#include <cstdint>
#include <cstring>

#include "cuda_target.h"
#include "runtime/cuda/attention/uncovered.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"

namespace lorica::cuda {
namespace {

constexpr int kThreads = 128;

// The rows that segments cover.
struct CoveredRows {
  int32_t count = 0;
  struct {
    int32_t begin;
    int32_t end;
  } ranges[kMaxTableSegments];
};

CoveredRows CoveredBy(const ArrayView<Segment>& segments, Side side) {
  CoveredRows covered;
  for (const Segment& s : segments) {
    const bool keys = side == Side::kKeys;
    const int64_t begin = keys ? s.first_key : s.first_query;
    const int64_t end = begin + (keys ? s.num_keys : s.num_queries);
    covered.ranges[covered.count++] = {static_cast<int32_t>(begin),
                                       static_cast<int32_t>(end)};
  }
  return covered;
}

// A block a row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    ZeroUncoveredKernel(const __grid_constant__ StridedRows rows,
                        const CoveredRows* covered) {
  const auto row = static_cast<int32_t>(blockIdx.x);
  for (int32_t i = 0; i < covered->count; ++i) {
    if (covered->ranges[i].begin <= row && row < covered->ranges[i].end) return;
  }
  T* to = static_cast<T*>(rows.data) + row * rows.row_stride;
  for (int64_t i = threadIdx.x; i < rows.count; i += kThreads) {
    Store(Pack<1>{{0.0f}}, to + i * rows.stride);
  }
}

}  // namespace

bool ZeroUncoveredRecorded(Queue* queue, const ArrayView<Segment>& segments,
                           Side side, const StridedRows& rows) {
  if (!IsRecorded(queue)) return false;
  const RecordTable table = {
      .name = {static_cast<int64_t>(TableKind::kCovered),
               static_cast<int64_t>(side)},
      .bytes = sizeof(CoveredRows),
      .fill = [side](const ArrayView<Segment>& now, void* to) {
        const CoveredRows covered = CoveredBy(now, side);
        std::memcpy(to, &covered, sizeof(covered));
      }};
  const auto* covered =
      static_cast<const CoveredRows*>(RecordedTable(queue, table, segments));
  DispatchFloat(rows.dtype, [&]<typename T>() {
    Launch(queue,
           {.grid = dim3(static_cast<unsigned>(rows.rows)),
            .block = dim3(kThreads)},
           ZeroUncoveredKernel<T>, rows, covered);
  });
  return true;
}

}  // namespace lorica::cuda
