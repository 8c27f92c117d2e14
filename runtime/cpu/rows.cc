#include <cstdint>
#include <cstring>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

namespace lorica::cpu {

void GatherRows(Queue* queue, const GatherRowsArgs& args) {
  const int32_t* ids = args.ids.As<const int32_t>();
  const size_t bytes = static_cast<size_t>(args.y.cols) * SizeOf(args.y.dtype);
  ParallelRows(*queue, args.y.rows, args.y.cols, [&](Range rows) {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const int64_t from = ids[row] - args.first_row;
      if (0 <= from && from < args.table.rows) {
        std::memcpy(args.y.At(row, 0), args.table.At(from, 0), bytes);
      } else {
        std::memset(args.y.At(row, 0), 0, bytes);
      }
    }
  });
}

void ScatterRows(Queue* queue, const ScatterRowsArgs& args) {
  const int32_t* ids = args.ids.As<const int32_t>();
  const size_t bytes = static_cast<size_t>(args.y.cols) * SizeOf(args.y.dtype);
  ParallelRows(*queue, args.y.rows, args.y.cols, [&](Range rows) {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      std::memset(args.y.At(row, 0), 0, bytes);
    }
  });
  ParallelRows(*queue, args.x.rows, args.x.cols, [&](Range rows) {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      std::memcpy(args.y.At(ids[row], 0), args.x.At(row, 0), bytes);
    }
  });
}

}  // namespace lorica::cpu
