// The frozen products of a training step: which they are, and how long they
// take by themselves.
#ifndef LORICA_TESTS_BENCH_RECORDED_PRODUCTS_H_
#define LORICA_TESTS_BENCH_RECORDED_PRODUCTS_H_

#include <compare>
#include <cstdint>
#include <map>

#include "runtime/backend.h"
#include "runtime/device.h"

namespace lorica {

// [m, k] times [k, n].
struct Product {
  MatmulForm form = MatmulForm::kNN;
  DType dtype = DType::kF32;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  friend auto operator<=>(const Product&, const Product&) = default;
};

// A table that calls `inner` and counts the products of frozen weights that
// its entries are made of: linear layers and the output head. One a process.
const Backend* RecordProducts(const Backend* inner);
// What was counted since the last call.
std::map<Product, int64_t> TakeProducts();

// What products take by themselves: dense operands, one product after another.
struct ProductsAlone {
  double seconds = 0;
  double flops = 0;
  double best_flops_per_second = 0;  // Of any one shape.
};
// The median of `rounds` rounds, each of which runs every shape once, times how
// often it occurs.
ProductsAlone MeasureProducts(Device* device,
                              const std::map<Product, int64_t>& products,
                              int rounds);

// Bytes per second, read and written, of a copy that no cache holds.
double MeasureCopy(Device* device);

}  // namespace lorica

#endif  // LORICA_TESTS_BENCH_RECORDED_PRODUCTS_H_
