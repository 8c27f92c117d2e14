#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/op_case_list.h"

namespace lorica {
namespace {

std::string WordOf(MatmulForm form) {
  switch (form) {
    case MatmulForm::kNN:
      return "Nn";
    case MatmulForm::kNT:
      return "Nt";
    case MatmulForm::kTN:
      return "Tn";
  }
  return "";
}

struct ProductCase {
  MatmulForm form;
  int64_t m;
  int64_t n;
  int64_t k;
  DType dtype;
  DType result;
  Layout2d layout = Layout2d::kDense;
  double scale = 1.0;
  Update update = Update::kAssign;
  bool biased = false;
  Layout2d y_layout = Layout2d::kDense;  // Of y alone, where `layout` is dense.
};

std::string NameOf(const ProductCase& c) {
  return WordOf(c.form) + std::to_string(c.m) + "x" + std::to_string(c.n) +
         "x" + std::to_string(c.k) + WordOf(c.dtype) + "To" + WordOf(c.result) +
         WordOf(c.layout) + WordOf(c.y_layout) + (c.biased ? "Biased" : "") +
         (c.update == Update::kAdd ? "Added" : "");
}

HostMatrix LeftOf(const ProductCase& c) {
  return c.form == MatmulForm::kTN ? RandomMatrix("a", c.k, c.m, c.dtype)
                                   : RandomMatrix("a", c.m, c.k, c.dtype);
}

HostMatrix RightOf(const ProductCase& c) {
  return c.form == MatmulForm::kNT ? RandomMatrix("b", c.n, c.k, c.dtype)
                                   : RandomMatrix("b", c.k, c.n, c.dtype);
}

HostMatrix BiasOf(const ProductCase& c) {
  return RandomMatrix("bias", 1, c.n, c.dtype);
}

PreparedOp Prepare(const ProductCase& c, Device* device) {
  const Tensor a = Upload(device, LeftOf(c), c.dtype, c.layout);
  const Tensor b = Upload(device, RightOf(c), c.dtype, c.layout);
  const Layout2d y_layout =
      c.layout == Layout2d::kDense ? c.y_layout : c.layout;
  const Tensor y = c.update == Update::kAdd
                       ? Upload(device, RandomMatrix("y", c.m, c.n, c.result),
                                c.result, y_layout)
                       : Room(device, c.m, c.n, c.result, y_layout);
  const Tensor bias = c.biased ? Upload(device, BiasOf(c), c.dtype) : Tensor();
  return {.run =
              [=] {
                device->backend().matmul(device->queue(),
                                         {.form = c.form,
                                          .a = a.view(),
                                          .b = b.view(),
                                          .y = y.view(),
                                          .bias = bias.view(),
                                          .scale = static_cast<float>(c.scale),
                                          .update = c.update});
              },
          .results = {{"y", y}}};
}

std::vector<OpExpectation> Expectation(const ProductCase& c) {
  using reference::Absolute;
  const HostMatrix a = LeftOf(c);
  const HostMatrix b = RightOf(c);
  HostMatrix y = Scaled(Matmul(c.form, a, b), c.scale);
  HostMatrix terms = Scaled(Matmul(c.form, Absolute(a), Absolute(b)), c.scale);
  if (c.update == Update::kAdd) {
    const HostMatrix before = RandomMatrix("y", c.m, c.n, c.result);
    y = Sum(y, before);
    terms = Sum(terms, Absolute(before));
  }
  if (c.biased) {
    const HostMatrix bias = Repeated(BiasOf(c), c.m);
    y = Sum(y, bias);
    terms = Sum(terms, Absolute(bias));
  }
  return {Expect("y", y, {.result = c.result, .length = c.k + 2}, terms)};
}

OpCase CaseOf(const ProductCase& c) {
  return {.entry = "matmul",
          .name = NameOf(c),
          .flops = 2.0 * static_cast<double>(c.m * c.n * c.k),
          .prepare = [c](Device* device) { return Prepare(c, device); },
          .expect = [c] { return Expectation(c); }};
}

// Products with a short side, as adapters bring them, in the updates they have
// there.
void AddThinCases(OpCaseList* list) {
  for (const DType dtype : kComputeTypes) {
    for (const Layout2d layout : {Layout2d::kDense, Layout2d::kStrided}) {
      for (const int64_t rank : {1, 3, 8, 16, 21, 32}) {
        const ProductCase cases[] = {
            {MatmulForm::kNT, 37, rank, 83, dtype, dtype, layout},
            {MatmulForm::kNN, 29, rank, 70, dtype, DType::kF32, layout, 0.5},
            {MatmulForm::kNT, 21, 147, rank, dtype, dtype, layout, 1.0,
             Update::kAdd},
            {MatmulForm::kNN, 16, 64, rank, dtype, dtype, layout, 1.0,
             Update::kAdd},
            {MatmulForm::kTN, rank, 77, 45, dtype, DType::kF32, layout, 1.0,
             Update::kAdd},
            {MatmulForm::kTN, 77, rank, 46, dtype, DType::kF32, layout, 0.5,
             Update::kAdd}};
        for (const ProductCase& c : cases) list->push_back(CaseOf(c));
      }
    }
  }
}

// The same of rows at multiples of 16 bytes, and deep enough to be cut.
void AddPackedThinCases(OpCaseList* list) {
  constexpr DType kB = DType::kBF16;
  constexpr DType kF = DType::kF32;
  for (const int64_t rank : {8, 24, 64}) {
    const ProductCase cases[] = {
        {MatmulForm::kNT, 70, rank, 200, kB, kB},
        {MatmulForm::kNN, 130, rank, 136, kB, kF, Layout2d::kDense, 0.5},
        {MatmulForm::kTN, rank, 136, 300, kB, kF, Layout2d::kDense, 1.0,
         Update::kAdd},
        {MatmulForm::kTN, 136, rank, 200, kB, kF, Layout2d::kDense, 0.5}};
    for (const ProductCase& c : cases) list->push_back(CaseOf(c));
  }
  // So wide that its depth of three tiles is not cut.
  list->push_back(CaseOf({MatmulForm::kTN, 8, 8200, 130, kB, kF}));
  // Results whose rows do not lie as those of the operands.
  const ProductCase cases[] = {{MatmulForm::kNT, 70, 21, 200, kB, kB},
                               {MatmulForm::kNT, 70, 21, 72, kB, kF},
                               {MatmulForm::kNN, 130, 24, 72, kB, kB},
                               {MatmulForm::kTN, 24, 136, 300, kB, kF},
                               {MatmulForm::kTN, 136, 24, 200, kB, kF},
                               {MatmulForm::kTN, 8, 8200, 130, kB, kF},
                               {MatmulForm::kTN, 8200, 8, 65, kB, kF}};
  for (ProductCase c : cases) {
    for (const Layout2d layout : {Layout2d::kStrided, Layout2d::kPadded}) {
      c.y_layout = layout;
      c.update = layout == Layout2d::kStrided ? Update::kAssign : Update::kAdd;
      list->push_back(CaseOf(c));
    }
  }
}

// With a bias, from a single row to several panels of columns and of depth.
void AddBiasedCases(OpCaseList* list) {
  for (const DType dtype : kComputeTypes) {
    for (const Update update : {Update::kAssign, Update::kAdd}) {
      const ProductCase cases[] = {
          {MatmulForm::kNT, 1, 19, 40, dtype, dtype},
          {MatmulForm::kNT, 4, 50, 96, dtype, dtype},
          {MatmulForm::kNT, 37, 8, 64, dtype, dtype},
          {MatmulForm::kNT, 45, 77, 130, dtype, dtype},
          {MatmulForm::kNT, 9, 40, 4104, dtype, dtype}};
      for (ProductCase c : cases) {
        c.update = update;
        c.biased = true;
        list->push_back(CaseOf(c));
      }
    }
  }
}

}  // namespace

void AddProductCases(OpCaseList* list) {
  AddThinCases(list);
  AddPackedThinCases(list);
  AddBiasedCases(list);
  constexpr MatmulForm kForms[] = {MatmulForm::kNN, MatmulForm::kNT,
                                   MatmulForm::kTN};
  struct Extent {
    int64_t m;
    int64_t n;
    int64_t k;
  };
  constexpr Extent kExtents[] = {{1, 1, 1},    {1, 19, 40},   {3, 33, 7},
                                 {4, 50, 96},  {5, 7, 3},     {37, 8, 61},
                                 {64, 48, 32}, {130, 70, 129}};
  for (const MatmulForm form : kForms) {
    for (const auto [m, n, k] : kExtents) {
      for (const DType dtype : kComputeTypes) {
        ProductCase c = {form, m, n, k, dtype, dtype};
        list->push_back(CaseOf(c));
        c.layout = Layout2d::kStrided;
        c.update = Update::kAdd;
        c.scale = 0.5;
        list->push_back(CaseOf(c));
        if (dtype == DType::kF32) continue;
        c.result = DType::kF32;
        list->push_back(CaseOf(c));
      }
    }
  }
}

}  // namespace lorica
