#include "launch/commands/tensor_listing.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/files/block_decode.h"

namespace lorica {
namespace {

// Takes the number, or else the one character, off the front of `text`. Numbers
// compare by length, then by digits.
absl::string_view TakePiece(absl::string_view* text) {
  size_t length = 0;
  while (length < text->size() &&
         absl::ascii_isdigit(static_cast<unsigned char>((*text)[length]))) {
    ++length;
  }
  length = std::max<size_t>(length, 1);
  const absl::string_view piece = text->substr(0, length);
  text->remove_prefix(length);
  return piece;
}

std::string Megabytes(int64_t bytes) {
  return absl::StrFormat("%.1f MB", static_cast<double>(bytes) / 1e6);
}

struct Total {
  int64_t tensors = 0;
  int64_t elements = 0;
  int64_t bytes = 0;

  void Add(const StoredTensor& tensor) {
    ++tensors;
    elements += tensor.elements();
    bytes += static_cast<int64_t>(tensor.bytes.size());
  }
};

void PrintTotal(absl::string_view what, const Total& total, std::ostream& out) {
  out << absl::StreamFormat("%s: %d tensors, %d elements, %s\n", what,
                            total.tensors, total.elements,
                            Megabytes(total.bytes));
}

}  // namespace

bool NaturallyBefore(absl::string_view a, absl::string_view b) {
  while (!a.empty() && !b.empty()) {
    const absl::string_view x = TakePiece(&a);
    const absl::string_view y = TakePiece(&b);
    if (x != y) {
      const bool numbers =
          absl::ascii_isdigit(x[0]) && absl::ascii_isdigit(y[0]);
      return numbers && x.size() != y.size() ? x.size() < y.size() : x < y;
    }
  }
  return a.size() < b.size();
}

void PrintTensors(const TensorTable& tensors, std::ostream& out) {
  std::vector<const StoredTensor*> rows;
  size_t name_width = 4;
  size_t shape_width = 5;
  Total all;
  std::map<std::string, Total> by_type;
  for (const auto& [name, tensor] : tensors) {
    rows.push_back(&tensor);
    name_width = std::max(name_width, name.size());
    shape_width = std::max(shape_width, ShapeToString(tensor.shape).size());
    all.Add(tensor);
    by_type[NameOf(tensor.type)].Add(tensor);
  }
  std::sort(rows.begin(), rows.end(),
            [](const StoredTensor* a, const StoredTensor* b) {
              return NaturallyBefore(a->name, b->name);
            });
  const auto line = [&](absl::string_view name, absl::string_view shape,
                        absl::string_view type, absl::string_view bytes) {
    out << absl::StreamFormat(
        "%-*s  %-*s  %-5s %12s\n", static_cast<int>(name_width), name,
        static_cast<int>(shape_width), shape, type, bytes);
  };
  line("name", "shape", "type", "bytes");
  for (const StoredTensor* row : rows) {
    line(row->name, ShapeToString(row->shape), NameOf(row->type),
         absl::StrCat(row->bytes.size()));
  }
  for (const auto& [type, total] : by_type) {
    PrintTotal(type, total, out);
  }
  PrintTotal("total", all, out);
}

std::vector<NotFinite> FindNotFinite(const TensorTable& tensors,
                                     int64_t* read) {
  std::vector<NotFinite> found;
  std::vector<float> row;
  for (const auto& [name, tensor] : tensors) {
    if (!CanDecode(tensor.type) || tensor.shape.empty()) continue;
    const int64_t cols = tensor.shape.back();
    const int64_t rows = cols == 0 ? 0 : tensor.elements() / cols;
    const size_t row_bytes =
        rows == 0 ? 0 : tensor.bytes.size() / static_cast<size_t>(rows);
    row.resize(static_cast<size_t>(cols));
    NotFinite bad{.tensor = name};
    for (int64_t r = 0; r < rows; ++r) {
      DecodeRow(tensor.type,
                tensor.bytes.data() + static_cast<size_t>(r) * row_bytes,
                {0, cols}, row.data());
      bad.elements += std::count_if(row.begin(), row.end(), [](float value) {
        return !std::isfinite(value);
      });
    }
    *read += static_cast<int64_t>(tensor.bytes.size());
    tensor.file->Release(tensor.bytes);
    if (bad.elements > 0) found.push_back(std::move(bad));
  }
  return found;
}

}  // namespace lorica
