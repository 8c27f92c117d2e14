// Matrix products: oneDNN's for matrices, our own for a few rows.
#ifndef LORICA_RUNTIME_CPU_MATMUL_H_
#define LORICA_RUNTIME_CPU_MATMUL_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "runtime/backend.h"

namespace lorica::cpu {

struct Queue;

// What a compiled product depends on: everything but the addresses.
struct MatmulKey {
  MatmulForm form;
  DType operand;
  DType result;
  Update update;
  bool biased;
  float scale;
  int64_t m;
  int64_t n;
  int64_t k;
  int64_t a_stride;
  int64_t b_stride;
  int64_t y_stride;

  friend auto operator<=>(const MatmulKey&, const MatmulKey&) = default;
};

// oneDNN's compiled products. Compiling one costs about half a millisecond, so
// the latest kCapacity of them are kept.
class MatmulCache {
 public:
  static constexpr size_t kCapacity = 512;

  MatmulCache();
  ~MatmulCache();
  MatmulCache(const MatmulCache&) = delete;
  MatmulCache& operator=(const MatmulCache&) = delete;

  // Operands of one type, F32 or BF16; `queue` lends the scratch memory.
  void Run(Queue* queue, const MatmulArgs& args);
  // oneDNN's name for the code it chose.
  std::string Implementation(const MatmulArgs& args);
  size_t size() const { return products_.size(); }

 private:
  struct Engine;
  struct Product;

  Product& Find(const MatmulArgs& args);

  std::unique_ptr<Engine> engine_;
  std::map<MatmulKey, std::unique_ptr<Product>> products_;
  uint64_t uses_ = 0;
};

// MatmulArgs of form NT for the few rows of a that generation brings: one pass
// over b, at memory speed. Operands may be F32 or BF16, mixed.
inline constexpr int64_t kMaxFewRows = 4;
void FewRowsMatmulNT(Queue* queue, const MatmulArgs& args);

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_MATMUL_H_
