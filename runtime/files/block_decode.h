// Turns stored elements into numbers to compute with.
#ifndef LORICA_RUNTIME_FILES_BLOCK_DECODE_H_
#define LORICA_RUNTIME_FILES_BLOCK_DECODE_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "runtime/dtype.h"
#include "runtime/files/stored_tensor.h"
#include "runtime/shape.h"

namespace lorica {

// F32, F16, BF16, Q4_0, Q4_1 and Q8_0.
bool CanDecode(StoredType type);

// Elements [cols] of a row whose bytes start at `row`, as floats. Exact but for
// the one rounding of a quantized block's q * d + m.
void DecodeRow(StoredType type, const char* row, Range cols, float* out);
// The same, rounded to the nearest.
void DecodeRow(StoredType type, const char* row, Range cols, BFloat16* out);

// Which rows and columns of a stored matrix to decode. Row i of the result is
// the stored row source_row(rows.begin + i).
struct DecodeSlice {
  Range rows;
  Range cols;
  absl::FunctionRef<int64_t(int64_t)> source_row;
};

// Decodes a slice of a matrix, or of a vector as one row, into dense `out` of
// kF32 or kBF16, over the calling thread's OpenMP team. The file's pages are
// released at the end. The slice must lie within the tensor.
void DecodeMatrix(const StoredTensor& tensor, const DecodeSlice& slice,
                  DType dtype, void* out);

}  // namespace lorica

#endif  // LORICA_RUNTIME_FILES_BLOCK_DECODE_H_
