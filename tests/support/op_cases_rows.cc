#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/op_case_list.h"

namespace lorica {
namespace {

using reference::Absolute;
using reference::Sum;

OpCase GatherCase(DType dtype, Layout2d layout) {
  constexpr int64_t kFirstRow = 10;
  const HostMatrix table = RandomMatrix("table", 30, 37, dtype);
  // Some rows lie before this rank's slice of the table, some behind it.
  const std::vector<int32_t> ids = RandomInts("ids", 50, {0, 50});
  const auto prepare = [=](Device* device) {
    const Tensor on_table = Upload(device, table, dtype, layout);
    const Tensor on_ids = UploadInts(device, ids);
    const Tensor y = Room(device, 50, table.cols, dtype, layout);
    return PreparedOp{.run =
                          [=] {
                            device->backend().gather_rows(
                                device->queue(), {.table = on_table.view(),
                                                  .ids = on_ids.view(),
                                                  .y = y.view(),
                                                  .first_row = kFirstRow});
                          },
                      .results = {{"y", y}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    const HostMatrix y = GatherRows(table, ids, kFirstRow);
    return {Expect("y", y, {}, Absolute(y))};
  };
  return {.entry = "gather_rows",
          .name = "SliceOfTable" + WordOf(dtype) + WordOf(layout),
          .prepare = prepare,
          .expect = expect};
}

OpCase ScatterCase(DType dtype, Layout2d layout) {
  constexpr int64_t kRows = 40;
  const HostMatrix x = RandomMatrix("x", 5, 33, dtype);
  const std::vector<int32_t> ids = {7, 0, 39, 12, 8};
  const auto prepare = [=](Device* device) {
    const Tensor on_x = Upload(device, x, dtype, layout);
    const Tensor on_ids = UploadInts(device, ids);
    const Tensor y = Room(device, kRows, x.cols, dtype, layout);
    return PreparedOp{
        .run =
            [=] {
              device->backend().scatter_rows(
                  device->queue(),
                  {.x = on_x.view(), .ids = on_ids.view(), .y = y.view()});
            },
        .results = {{"y", y}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    const HostMatrix y = ScatterRows(x, ids, kRows);
    return {Expect("y", y, {}, Absolute(y))};
  };
  return {.entry = "scatter_rows",
          .name = "FiveOfForty" + WordOf(dtype) + WordOf(layout),
          .prepare = prepare,
          .expect = expect};
}

OpCase DropoutCase(float p, DType dtype, Layout2d layout, Update update) {
  constexpr int64_t kRows = 9;
  constexpr int64_t kCols = 61;
  const HostMatrix x = RandomMatrix("x", kRows, kCols, dtype);
  const HostMatrix before = RandomMatrix("y", kRows, kCols, dtype);
  reference::DropoutPlace place = {.field = {.seed = 7, .stream = 11},
                                   .row_elements = 131,
                                   .first_col = 38,
                                   .p = p};
  for (int64_t r = 0; r < kRows; ++r) {
    place.row_index.push_back(int64_t{1} << (4 * r));
  }
  const auto prepare = [=](Device* device) {
    const Tensor on_x = Upload(device, x, dtype, layout);
    const Tensor y = update == Update::kAdd
                         ? Upload(device, before, dtype, layout)
                         : Room(device, kRows, kCols, dtype, layout);
    const Tensor row_index = UploadLongs(device, place.row_index);
    return PreparedOp{.run =
                          [=] {
                            device->backend().dropout(
                                device->queue(),
                                {.x = on_x.view(),
                                 .y = y.view(),
                                 .row_index = row_index.view(),
                                 .field = place.field,
                                 .row_elements = place.row_elements,
                                 .first_col = place.first_col,
                                 .p = p,
                                 .update = update});
                          },
                      .results = {{"y", y}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    HostMatrix y = Dropout(x, place);
    HostMatrix terms = Absolute(y);
    if (update == Update::kAdd) {
      y = Sum(y, before);
      terms = Sum(terms, Absolute(before));
    }
    return {Expect("y", y, {.result = dtype, .length = 3}, terms)};
  };
  return {.entry = "dropout",
          .name = std::to_string(static_cast<int>(100 * p)) + "Percent" +
                  WordOf(dtype) + WordOf(layout) +
                  (update == Update::kAdd ? "Added" : ""),
          .prepare = prepare,
          .expect = expect};
}

}  // namespace

void AddRowCases(OpCaseList* list) {
  for (const DType dtype : kComputeTypes) {
    for (const Layout2d layout : kEveryLayout) {
      list->push_back(GatherCase(dtype, layout));
      list->push_back(ScatterCase(dtype, layout));
      for (const Update update : {Update::kAssign, Update::kAdd}) {
        list->push_back(DropoutCase(0.0f, dtype, layout, update));
        list->push_back(DropoutCase(0.1f, dtype, layout, update));
        list->push_back(DropoutCase(0.5f, dtype, layout, update));
      }
    }
  }
}

}  // namespace lorica
