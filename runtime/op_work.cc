#include "runtime/op_work.h"

#include <initializer_list>

#include "runtime/dtype.h"

namespace lorica {
namespace {

double BytesOf(const View& view) {
  if (!view.present()) return 0.0;
  return static_cast<double>(view.elements()) *
         static_cast<double>(SizeOf(view.dtype));
}

double BytesOf(std::initializer_list<View> views) {
  double bytes = 0.0;
  for (const View& view : views) bytes += BytesOf(view);
  return bytes;
}

double ProductFlops(int64_t m, int64_t n, int64_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) *
         static_cast<double>(k);
}

// Pairs of a query and a key it sees, times the heads' elements.
double VisiblePairs(const AttentionArgs& args) {
  double pairs = 0.0;
  for (const Segment& s : args.segments) {
    const double queries = static_cast<double>(s.num_queries);
    const double keys = static_cast<double>(s.num_keys);
    pairs += queries * (keys - (queries - 1) / 2);
  }
  return pairs * static_cast<double>(args.q.cols);
}

}  // namespace

Work WorkOf(const ScatterPiecesArgs& args) {
  View copies = args.x;
  copies.dtype = args.dtype;
  return {.bytes = BytesOf({args.x, copies, args.pieces})};
}

Work WorkOf(const MatmulArgs& args) {
  const int64_t k = args.form == MatmulForm::kTN ? args.a.rows : args.a.cols;
  return {.flops = ProductFlops(args.y.rows, args.y.cols, k),
          .bytes = BytesOf({args.a, args.b, args.y})};
}

Work WorkOf(const LoraForwardArgs& args) {
  Work work = {.flops = 0, .bytes = BytesOf({args.x, args.a, args.xa})};
  if (args.a.present()) {
    work.flops += ProductFlops(args.x.rows, args.a.rows, args.x.cols);
  }
  for (const LinearPart& part : args.parts) {
    const int64_t rank = part.b.present() ? part.b.cols : 0;
    work.flops +=
        ProductFlops(args.x.rows, part.weight.rows, args.x.cols + rank);
    work.bytes += BytesOf({part.weight, part.y, part.b});
  }
  return work;
}

Work WorkOf(const LoraBackwardArgs& args) {
  Work work = {.flops = 0,
               .bytes = BytesOf({args.adapter_x, args.xa, args.a, args.da,
                                 args.dxa, args.dx, args.adapter_dx})};
  for (const LinearPart& part : args.parts) {
    const int64_t tokens = part.y.rows;
    work.bytes += BytesOf({part.y, part.b, part.db});
    if (args.dx.present()) {
      work.flops += ProductFlops(tokens, part.weight.rows, part.weight.cols);
      work.bytes += BytesOf(part.weight);
    }
    if (!part.b.present()) continue;
    // dxa and db of this part; its rows of da, and of the adapters' dx.
    const int64_t products = args.dx.present() ? 2 : 1;
    work.flops += 2 * ProductFlops(tokens, part.b.rows, part.b.cols) +
                  static_cast<double>(products) *
                      ProductFlops(tokens, part.b.cols, part.weight.cols);
  }
  return work;
}

Work WorkOf(const RmsNormArgs& args) {
  const bool sums = args.delta.present();
  return {.bytes = BytesOf({args.x, args.delta, args.weight,
                            sums ? args.sum : View{}, args.y, args.rstd})};
}

Work WorkOf(const RmsNormBackwardArgs& args) {
  const bool adds = args.update == Update::kAdd;
  return {.bytes = BytesOf({args.dy, args.x, args.weight, args.rstd, args.dx,
                            adds ? args.dx : View{}})};
}

Work WorkOf(const LayerNormArgs& args) {
  const bool sums = args.delta.present();
  return {.bytes = BytesOf({args.x, args.delta, args.weight, args.bias,
                            sums ? args.sum : View{}, args.y, args.mean,
                            args.rstd})};
}

Work WorkOf(const LayerNormBackwardArgs& args) {
  const bool adds = args.update == Update::kAdd;
  return {.bytes = BytesOf({args.dy, args.x, args.weight, args.mean, args.rstd,
                            args.dx, adds ? args.dx : View{}})};
}

Work WorkOf(const RopeArgs& args) { return {.bytes = 2 * BytesOf(args.x)}; }

Work WorkOf(const SwigluArgs& args) {
  return {.bytes = BytesOf({args.gate, args.up, args.y})};
}

Work WorkOf(const SwigluBackwardArgs& args) {
  return {.bytes =
              BytesOf({args.dy, args.gate, args.up, args.dgate, args.dup})};
}

Work WorkOf(const GeluArgs& args) {
  return {.bytes = BytesOf({args.x, args.y})};
}

Work WorkOf(const GeluBackwardArgs& args) {
  return {.bytes = BytesOf({args.dy, args.x, args.dx})};
}

Work WorkOf(const AttentionArgs& args) {
  return {.flops = 4.0 * VisiblePairs(args),
          .bytes = BytesOf({args.q, args.k, args.v, args.out, args.lse})};
}

Work WorkOf(const AttentionBackwardArgs& args) {
  return {.flops = 10.0 * VisiblePairs(args.forward),
          .bytes = WorkOf(args.forward).bytes +
                   BytesOf({args.dout, args.dq, args.dk, args.dv})};
}

Work WorkOf(const GatherRowsArgs& args) {
  return {.bytes = 2 * BytesOf(args.y) + BytesOf(args.ids)};
}

Work WorkOf(const ScatterRowsArgs& args) {
  return {.bytes = BytesOf({args.x, args.ids, args.y})};
}

Work WorkOf(const DropoutArgs& args) {
  const bool adds = args.update == Update::kAdd;
  return {.bytes = BytesOf(
              {args.x, args.y, adds ? args.y : View{}, args.row_index})};
}

Work WorkOf(const LogitStatsArgs& args) {
  return {.flops = ProductFlops(args.h.rows, args.weight.rows, args.h.cols),
          .bytes = BytesOf({args.h, args.weight, args.targets, args.stats,
                            args.exps, args.tile_max})};
}

Work WorkOf(const MergeLogitStatsArgs& args) {
  return {.bytes = BytesOf({args.slices, args.stats})};
}

Work WorkOf(const LogitGradArgs& args) {
  return {.flops = ProductFlops(args.dh.rows, args.weight.rows, args.dh.cols),
          .bytes = 2 * BytesOf(args.exps) +
                   BytesOf({args.tile_max, args.stats, args.targets,
                            args.weight, args.dh})};
}

Work WorkOf(const AdamWArgs& args) {
  return {.bytes =
              BytesOf(args.grad) + 2 * BytesOf({args.value, args.m, args.v})};
}

Work WorkOf(View y, float) { return {.bytes = BytesOf(y)}; }

Work WorkOf(View x, float, View y) { return {.bytes = BytesOf({x, y})}; }

Work WorkOf(View x, View y) { return {.bytes = BytesOf({x, y, y})}; }

Work WorkOf(void*, const void*, size_t bytes) {
  return {.bytes = 2.0 * static_cast<double>(bytes)};
}

}  // namespace lorica
