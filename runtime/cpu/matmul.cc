#include "runtime/cpu/matmul.h"

#include <algorithm>
#include <cstddef>
#include <dnnl.hpp>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "runtime/cpu/dense_products.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/queue.h"
#include "runtime/cpu/thin_products.h"

namespace lorica::cpu {
namespace {

using Desc = dnnl::memory::desc;

dnnl::memory::data_type TypeOf(DType dtype) {
  return dtype == DType::kBF16 ? dnnl::memory::data_type::bf16
                               : dnnl::memory::data_type::f32;
}

// A single row has no stride of its own; calling it dense lets oneDNN choose
// its faster code.
int64_t StrideOf(const View& v) { return v.rows <= 1 ? v.cols : v.row_stride; }

MatmulKey KeyOf(const MatmulArgs& args) {
  const bool a_transposed = args.form == MatmulForm::kTN;
  return {.form = args.form,
          .operand = args.a.dtype,
          .result = args.y.dtype,
          .update = args.update,
          .biased = args.bias.present(),
          .scale = args.scale,
          .m = args.y.rows,
          .n = args.y.cols,
          .k = a_transposed ? args.a.rows : args.a.cols,
          .a_stride = StrideOf(args.a),
          .b_stride = StrideOf(args.b),
          .y_stride = StrideOf(args.y)};
}

dnnl::matmul::primitive_desc DescribeProduct(const MatmulKey& key,
                                             const dnnl::engine& engine) {
  const bool a_transposed = key.form == MatmulForm::kTN;
  const bool b_transposed = key.form == MatmulForm::kNT;
  using Dims = dnnl::memory::dims;
  const Desc a({key.m, key.k}, TypeOf(key.operand),
               a_transposed ? Dims{1, key.a_stride} : Dims{key.a_stride, 1});
  const Desc b({key.k, key.n}, TypeOf(key.operand),
               b_transposed ? Dims{1, key.b_stride} : Dims{key.b_stride, 1});
  const Desc y({key.m, key.n}, TypeOf(key.result), {key.y_stride, 1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (key.scale != 1.0f) attributes.set_output_scales(0, {key.scale});
  if (key.update == Update::kAdd) {
    dnnl::post_ops add;
    add.append_sum(1.0f);
    attributes.set_post_ops(add);
  }
  const Desc bias({1, key.n}, TypeOf(key.operand), Dims{key.n, 1});
  return dnnl::matmul::primitive_desc(key.biased
                                          ? dnnl::matmul::desc(a, b, bias, y)
                                          : dnnl::matmul::desc(a, b, y),
                                      attributes, engine);
}

}  // namespace

struct MatmulCache::Engine {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
};

struct MatmulCache::Product {
  Product(const MatmulKey& key, const dnnl::engine& engine)
      : description(DescribeProduct(key, engine)),
        primitive(description),
        a(description.src_desc(), engine, nullptr),
        b(description.weights_desc(), engine, nullptr),
        y(description.dst_desc(), engine, nullptr),
        bias(description.bias_desc(), engine, nullptr),
        scratch(description.scratchpad_desc(), engine, nullptr),
        operands({{DNNL_ARG_SRC, a},
                  {DNNL_ARG_WEIGHTS, b},
                  {DNNL_ARG_DST, y},
                  {DNNL_ARG_SCRATCHPAD, scratch}}) {
    if (key.biased) operands.emplace(DNNL_ARG_BIAS, bias);
  }

  dnnl::matmul::primitive_desc description;
  dnnl::matmul primitive;
  dnnl::memory a;
  dnnl::memory b;
  dnnl::memory y;
  dnnl::memory bias;  // Of no elements where there is none.
  dnnl::memory scratch;
  std::unordered_map<int, dnnl::memory> operands;  // Those above.
  uint64_t last_use = 0;
};

MatmulCache::MatmulCache() : engine_(std::make_unique<Engine>()) {}
MatmulCache::~MatmulCache() = default;

MatmulCache::Product& MatmulCache::Find(const MatmulArgs& args) {
  const MatmulKey key = KeyOf(args);
  auto found = products_.find(key);
  if (found == products_.end()) {
    if (products_.size() >= kCapacity) {
      products_.erase(std::min_element(
          products_.begin(), products_.end(), [](const auto& p, const auto& q) {
            return p.second->last_use < q.second->last_use;
          }));
    }
    auto product = std::make_unique<Product>(key, engine_->engine);
    found = products_.emplace(key, std::move(product)).first;
  }
  found->second->last_use = ++uses_;
  return *found->second;
}

void MatmulCache::Run(Queue* queue, const MatmulArgs& args) {
  Product& product = Find(args);
  const size_t scratch_bytes = product.scratch.get_desc().get_size();
  product.a.set_data_handle(args.a.data);
  product.b.set_data_handle(args.b.data);
  product.y.set_data_handle(args.y.data);
  product.bias.set_data_handle(args.bias.data);
  product.scratch.set_data_handle(queue->ScratchFor<char>(
      ScratchUse::kOneDnn, static_cast<int64_t>(scratch_bytes)));
  product.primitive.execute(engine_->stream, product.operands);
}

std::string MatmulCache::Implementation(const MatmulArgs& args) {
  return Find(args).description.impl_info_str();
}

namespace {

// `v` itself, or its values in F32 in a scratch block.
View Widen(Queue* queue, const View& v, ScratchUse use) {
  if (v.dtype == DType::kF32) return v;
  const View wide = {queue->ScratchFor<float>(use, v.elements()), DType::kF32,
                     v.rows, v.cols, v.cols};
  Convert(queue, v, 1.0f, wide);
  return wide;
}

// For processors without BF16 instructions: the product in F32, rounded on the
// way out.
void WidenedMatmul(Queue* queue, const MatmulArgs& args) {
  MatmulArgs wide = args;
  wide.a = Widen(queue, args.a, ScratchUse::kWideA);
  wide.b = Widen(queue, args.b, ScratchUse::kWideB);
  if (args.bias.present()) {
    wide.bias = Widen(queue, args.bias, ScratchUse::kWideBias);
  }
  if (args.y.dtype == DType::kF32) {
    queue->matmuls.Run(queue, wide);
    return;
  }
  wide.y = {queue->ScratchFor<float>(ScratchUse::kWideY, args.y.elements()),
            DType::kF32, args.y.rows, args.y.cols, args.y.cols};
  if (args.update == Update::kAdd) Convert(queue, args.y, 1.0f, wide.y);
  queue->matmuls.Run(queue, wide);
  Convert(queue, wide.y, 1.0f, args.y);
}

}  // namespace

void Matmul(Queue* queue, const MatmulArgs& args) {
  if (args.y.elements() == 0) return;
  DCHECK(!args.bias.present() ||
         (args.form == MatmulForm::kNT && args.scale == 1.0f));
  const bool native = queue->bf16_products == Bf16Products::kNative;
  const ProductTerm term = {args.a, args.b};
  if (args.form == MatmulForm::kNT && args.y.rows <= kMaxFewRows) {
    FewRowsMatmulNT(queue, args);
  } else if (native && IsThin(args)) {
    ThinMatmul(queue, args);
  } else if (args.scale == 1.0f && IsDense(*queue, args.form, {&term, 1})) {
    SumOfProducts(queue, args.form, {&term, 1}, args.bias, args.update, args.y);
  } else if (args.a.dtype == DType::kBF16 && !native) {
    WidenedMatmul(queue, args);
  } else {
    queue->matmuls.Run(queue, args);
  }
}

}  // namespace lorica::cpu
