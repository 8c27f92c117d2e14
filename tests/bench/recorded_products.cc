#include "tests/bench/recorded_products.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "runtime/tensor.h"

namespace lorica {
namespace {

const Backend* inner_table = nullptr;
std::map<Product, int64_t> counts;

void LoraForward(Queue* queue, const LoraForwardArgs& args) {
  for (const LinearPart& part : args.parts) {
    ++counts[{MatmulForm::kNT, args.x.dtype, args.x.rows, part.weight.rows,
              part.weight.cols}];
  }
  inner_table->lora_forward(queue, args);
}

void LoraBackward(Queue* queue, const LoraBackwardArgs& args) {
  for (const LinearPart& part : args.parts) {
    if (!args.dx.present()) break;
    ++counts[{MatmulForm::kNN, part.y.dtype, part.y.rows, part.weight.cols,
              part.weight.rows}];
  }
  inner_table->lora_backward(queue, args);
}

void LogitStats(Queue* queue, const LogitStatsArgs& args) {
  ++counts[{MatmulForm::kNT, args.h.dtype, args.h.rows, args.weight.rows,
            args.h.cols}];
  inner_table->logit_stats(queue, args);
}

void LogitGrad(Queue* queue, const LogitGradArgs& args) {
  ++counts[{MatmulForm::kNN, args.exps.dtype, args.dh.rows, args.dh.cols,
            args.weight.rows}];
  inner_table->logit_grad(queue, args);
}

double SecondsOf(Device* device, const MatmulArgs& args) {
  const auto start = std::chrono::steady_clock::now();
  device->backend().matmul(device->queue(), args);
  device->Synchronize();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Tensor Ones(Device* device, int64_t rows, int64_t cols, DType dtype) {
  Tensor ones = Tensor::Empty(device, {rows, cols}, dtype);
  device->backend().fill(device->queue(), ones.view(), 1.0f);
  return ones;
}

// Median seconds of one product.
double Measure(Device* device, const Product& p, int rounds) {
  const bool nt = p.form == MatmulForm::kNT;
  const Tensor a = Ones(device, p.m, p.k, p.dtype);
  const Tensor b =
      nt ? Ones(device, p.n, p.k, p.dtype) : Ones(device, p.k, p.n, p.dtype);
  const Tensor y = Tensor::Empty(device, {p.m, p.n}, p.dtype);
  const MatmulArgs args = {
      .form = p.form, .a = a.view(), .b = b.view(), .y = y.view()};
  SecondsOf(device, args);  // Compiles the product.
  std::vector<double> seconds;
  for (int round = 0; round < rounds; ++round) {
    seconds.push_back(SecondsOf(device, args));
  }
  return Median(std::move(seconds));
}

}  // namespace

const Backend* RecordProducts(const Backend* inner) {
  static Backend table = *inner;
  inner_table = inner;
  table.lora_forward = LoraForward;
  table.lora_backward = LoraBackward;
  table.logit_stats = LogitStats;
  table.logit_grad = LogitGrad;
  return &table;
}

std::map<Product, int64_t> TakeProducts() { return std::exchange(counts, {}); }

ProductsAlone MeasureProducts(Device* device,
                              const std::map<Product, int64_t>& products,
                              int rounds) {
  ProductsAlone alone;
  for (const auto& [product, count] : products) {
    const double seconds = Measure(device, product, rounds);
    const double flops = 2.0 * static_cast<double>(product.m) *
                         static_cast<double>(product.n) *
                         static_cast<double>(product.k);
    alone.seconds += seconds * static_cast<double>(count);
    alone.flops += flops * static_cast<double>(count);
    alone.best_flops_per_second =
        std::max(alone.best_flops_per_second, flops / seconds);
  }
  return alone;
}

double MeasureCopy(Device* device) {
  constexpr int64_t kRows = 1 << 14;
  constexpr int64_t kCols = 1 << 12;
  const Tensor x = Ones(device, kRows, kCols, DType::kF32);
  const Tensor y = Ones(device, kRows, kCols, DType::kF32);
  std::vector<double> seconds;
  for (int round = 0; round < 9; ++round) {
    const auto start = std::chrono::steady_clock::now();
    device->backend().convert(device->queue(), x.view(), 1.0f, y.view());
    device->Synchronize();
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count());
  }
  return 2.0 * 4.0 * kRows * kCols / Median(std::move(seconds));
}

}  // namespace lorica
