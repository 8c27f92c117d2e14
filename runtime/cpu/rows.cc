#include <cstdint>
#include <cstring>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

namespace lorica::cpu {
namespace {

char* RowBytes(const View& v, int64_t row) {
  return v.As<char>() +
         static_cast<size_t>(row * v.row_stride) * SizeOf(v.dtype);
}

}  // namespace

void GatherRows(Queue* queue, const GatherRowsArgs& args) {
  const int32_t* ids = args.ids.As<const int32_t>();
  const size_t bytes = static_cast<size_t>(args.y.cols) * SizeOf(args.y.dtype);
  ParallelRows(*queue, args.y.rows, args.y.cols, [&](Range rows) {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const int64_t from = ids[row] - args.first_row;
      if (0 <= from && from < args.table.rows) {
        std::memcpy(RowBytes(args.y, row), RowBytes(args.table, from), bytes);
      } else {
        std::memset(RowBytes(args.y, row), 0, bytes);
      }
    }
  });
}

void ScatterRows(Queue* queue, const ScatterRowsArgs& args) {
  const int32_t* ids = args.ids.As<const int32_t>();
  const size_t bytes = static_cast<size_t>(args.y.cols) * SizeOf(args.y.dtype);
  ParallelRows(*queue, args.y.rows, args.y.cols, [&](Range rows) {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      std::memset(RowBytes(args.y, row), 0, bytes);
    }
  });
  ParallelRows(*queue, args.x.rows, args.x.cols, [&](Range rows) {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      std::memcpy(RowBytes(args.y, ids[row]), RowBytes(args.x, row), bytes);
    }
  });
}

}  // namespace lorica::cpu
