#include <omp.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "runtime/cpu/attention/backward_plan.h"
#include "runtime/cpu/attention/plan.h"
#include "runtime/cpu/attention/tiles.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/queue.h"

namespace lorica::cpu {
namespace {

constexpr std::array<float, kTile> Ones() {
  std::array<float, kTile> ones{};
  for (float& one : ones) one = 1.0f;
  return ones;
}
constexpr std::array<float, kTile> kOnes = Ones();

// What the threads of a wave share.
struct WaveScratch {
  WaveScratch(char* data, const BackwardWave& wave, int64_t tile_bytes,
              int64_t tile_floats) {
    const auto tiles = static_cast<int64_t>(wave.query_tiles.size());
    Carver carve(data);
    q = carve.Take(tiles * tile_bytes);
    dout = carve.Take(tiles * tile_bytes);
    q_rows = carve.Take(tiles * tile_bytes);
    dout_rows = carve.Take(tiles * tile_bytes);
    lse = carve.TakeFloats(tiles * kTile);
    dot = carve.TakeFloats(tiles * kTile);
    dq = carve.TakeFloats(wave.dq_tiles * tile_floats);
    bytes = carve.taken();
  }

  char* q;
  char* dout;
  char* q_rows;
  char* dout_rows;
  float* lse;
  float* dot;
  float* dq;  // Kept terms.
  int64_t bytes;
};

// What a thread has for the task it works on.
struct TaskScratch {
  TaskScratch(char* data, const BackwardWave& wave, const TileKernels& kernels,
              int64_t padded) {
    const int64_t key_bytes =
        wave.most_tiles * kTile * padded * kernels.operand_bytes;
    const int64_t score_bytes = kTile * kTile * kernels.operand_bytes;
    Carver carve(data);
    k = carve.Take(key_bytes);
    v = carve.Take(key_bytes);
    k_transposed = carve.Take(key_bytes);
    weights = carve.Take(score_bytes);
    dscores = carve.Take(score_bytes);
    dscores_right = carve.Take(score_bytes);
    dq = carve.TakeFloats(wave.most_blocks * kTile * padded);
    dk = carve.TakeFloats(wave.most_tiles * kTile * padded);
    dv = carve.TakeFloats(wave.most_tiles * kTile * padded);
    scores = carve.TakeFloats(kLanes * kTile);
    dweights = carve.TakeFloats(kLanes * kTile);
    bytes = carve.taken();
  }

  char* k;
  char* v;
  char* k_transposed;
  char* weights;
  char* dscores;
  char* dscores_right;
  float* dq;  // Of a task that keeps none.
  float* dk;
  float* dv;
  float* scores;
  float* dweights;
  int64_t bytes;
};

// The pass over one wave: all threads pack queries, then take tasks, then sum
// the kept terms of dq.
class WavePass {
 public:
  WavePass(Queue* queue, const AttentionBackwardArgs& args,
           const HeadShape& shape, const BackwardWave& wave)
      : threads_(queue->threads),
        args_(args),
        shape_(shape),
        kernels_(KernelsFor(*queue, args.forward)),
        wave_(wave),
        tile_bytes_(kTile * shape_.padded * kernels_.operand_bytes),
        tile_floats_(kTile * shape_.padded),
        shared_(
            queue->ScratchFor<char>(
                ScratchUse::kOperands,
                WaveScratch(nullptr, wave, tile_bytes_, tile_floats_).bytes),
            wave, tile_bytes_, tile_floats_),
        task_bytes_(TaskScratch(nullptr, wave, kernels_, shape.padded).bytes),
        task_scratch_(queue->ScratchFor<char>(ScratchUse::kAttention,
                                              threads_ * task_bytes_)) {}

  void Run() const {
    const size_t tiles = wave_.query_tiles.size();
#pragma omp parallel num_threads(threads_)
    {
      const TaskScratch mine(task_scratch_ + omp_get_thread_num() * task_bytes_,
                             wave_, kernels_, shape_.padded);
#pragma omp for schedule(static)
      for (size_t i = 0; i < tiles; ++i) PackQueries(static_cast<int64_t>(i));
#pragma omp for schedule(dynamic, 1)
      for (size_t i = 0; i < wave_.order.size(); ++i) {
        RunTask(wave_.tasks[static_cast<size_t>(wave_.order[i])], mine);
      }
#pragma omp for schedule(static)
      for (size_t i = 0; i < tiles; ++i) SumDq(wave_.query_tiles[i]);
    }
  }

 private:
  const BackwardUnit& UnitOf(int64_t unit) const {
    return wave_.units[static_cast<size_t>(unit)];
  }
  int64_t HeadOf(const QueryTile& tile) const {
    return UnitOf(tile.unit).kv_head * shape_.group + tile.group_head;
  }

  // Rows past the last query have zero dout, so whatever weights they get,
  // they add nothing.
  void PackQueries(int64_t index) const {
    const QueryTile& tile = wave_.query_tiles[static_cast<size_t>(index)];
    const AttentionArgs& forward = args_.forward;
    const int64_t head = HeadOf(tile);
    const RowBlock rows =
        QueryBlock(forward, UnitOf(tile.unit).segment, tile.block);
    const TileRows q = RowsOf(forward.q, rows, head, shape_);
    const TileRows dout = RowsOf(args_.dout, rows, head, shape_);
    const int64_t at = index * tile_bytes_;
    kernels_.pack_right_transposed(q, shared_.q + at);
    kernels_.pack_right_transposed(dout, shared_.dout + at);
    kernels_.pack_right(q, shared_.q_rows + at);
    kernels_.pack_right(dout, shared_.dout_rows + at);
    const float* from = forward.lse.Row<const float>(head) + rows.first_row;
    float* lse = shared_.lse + index * kTile;
    float* dot = shared_.dot + index * kTile;
    std::fill_n(lse, kTile, 0.0f);
    std::fill_n(dot, kTile, 0.0f);
    for (int64_t row = 0; row < rows.rows; ++row) lse[row] = from[row] * kLog2E;
    kernels_.row_dots(RowsOf(forward.out, rows, head, shape_), dout, dot);
  }

  void RunTask(const BackwardTask& task, const TaskScratch& scratch) const {
    PackKeys(task, scratch);
    const int64_t floats = task.tiles.size() * tile_floats_;
    std::fill_n(scratch.dk, floats, 0.0f);
    std::fill_n(scratch.dv, floats, 0.0f);
    const bool whole = task.first_dq == BackwardTask::kWhole;
    for (int64_t i = 0; i < shape_.group; ++i) {
      float* dq = whole ? scratch.dq : KeptDq(task, i, task.first_block);
      std::fill_n(dq, task.blocks * tile_floats_, 0.0f);
      for (int64_t tile = task.tiles.begin; tile < task.tiles.end; ++tile) {
        RunKeyTile(task, i, tile, scratch, dq);
      }
      for (int64_t b = 0; whole && b < task.blocks; ++b) {
        StoreDq({task.unit, i, b}, dq + b * tile_floats_);
      }
    }
    StoreKeys(task, scratch);
  }

  // Block `block` of a task's kept dq.
  float* KeptDq(const BackwardTask& task, int64_t group_head,
                int64_t block) const {
    const int64_t tile =
        task.first_dq + group_head * task.blocks + block - task.first_block;
    return shared_.dq + tile * tile_floats_;
  }

  void PackKeys(const BackwardTask& task, const TaskScratch& scratch) const {
    const BackwardUnit& unit = UnitOf(task.unit);
    for (int64_t i = 0; i < task.tiles.size(); ++i) {
      const RowBlock rows =
          KeyTile(args_.forward, unit.segment, task.tiles.begin + i);
      const TileRows k = RowsOf(args_.forward.k, rows, unit.kv_head, shape_);
      const TileRows v = RowsOf(args_.forward.v, rows, unit.kv_head, shape_);
      const int64_t at = i * tile_bytes_;
      kernels_.pack_left(k, scratch.k + at);
      kernels_.pack_left(v, scratch.v + at);
      kernels_.pack_left_transposed(k, scratch.k_transposed + at);
    }
  }

  void RunKeyTile(const BackwardTask& task, int64_t group_head, int64_t tile,
                  const TaskScratch& scratch, float* dq) const {
    const BackwardUnit& unit = UnitOf(task.unit);
    const Segment& segment = args_.forward.segments[unit.segment];
    const int64_t key = tile - task.tiles.begin;
    for (int64_t block = FirstBlock(segment, tile); block < unit.blocks;
         ++block) {
      const int64_t query =
          unit.first_query_tile + group_head * unit.blocks + block;
      const int64_t q_at = query * tile_bytes_;
      kernels_.backward(
          {.k = scratch.k + key * tile_bytes_,
           .v = scratch.v + key * tile_bytes_,
           .k_transposed = scratch.k_transposed + key * tile_bytes_,
           .q = shared_.q + q_at,
           .dout = shared_.dout + q_at,
           .q_rows = shared_.q_rows + q_at,
           .dout_rows = shared_.dout_rows + q_at,
           .lse = shared_.lse + query * kTile,
           .dot = shared_.dot + query * kTile,
           .extent = ExtentOf(segment, block, tile),
           .padded = shape_.padded,
           .scale = args_.forward.scale,
           .dq = dq + (block - task.first_block) * tile_floats_,
           .dk = scratch.dk + key * tile_floats_,
           .dv = scratch.dv + key * tile_floats_,
           .scores = scratch.scores,
           .dweights = scratch.dweights,
           .weights = scratch.weights,
           .dscores = scratch.dscores,
           .dscores_right = scratch.dscores_right});
    }
  }

  void StoreKeys(const BackwardTask& task, const TaskScratch& scratch) const {
    const BackwardUnit& unit = UnitOf(task.unit);
    for (int64_t i = 0; i < task.tiles.size(); ++i) {
      const RowBlock rows =
          KeyTile(args_.forward, unit.segment, task.tiles.begin + i);
      kernels_.store(scratch.dk + i * tile_floats_,
                     RowsOf(args_.dk, rows, unit.kv_head, shape_));
      kernels_.store(scratch.dv + i * tile_floats_,
                     RowsOf(args_.dv, rows, unit.kv_head, shape_));
    }
  }

  void StoreDq(const QueryTile& tile, const float* dq) const {
    const RowBlock rows =
        QueryBlock(args_.forward, UnitOf(tile.unit).segment, tile.block);
    kernels_.store_transposed(dq, kOnes.data(),
                              RowsOf(args_.dq, rows, HeadOf(tile), shape_));
  }

  // Sums the kept terms of a tile of dq over its unit's tasks, in order. The
  // first of them starts at block zero and becomes the sum.
  void SumDq(const QueryTile& tile) const {
    const Range tasks = UnitOf(tile.unit).tasks;
    if (tasks.size() == 1) return;
    const auto task = [&](int64_t at) -> const BackwardTask& {
      return wave_.tasks[static_cast<size_t>(at)];
    };
    float* sum = KeptDq(task(tasks.begin), tile.group_head, tile.block);
    for (int64_t at = tasks.begin + 1; at < tasks.end; ++at) {
      if (task(at).first_block > tile.block) break;
      const float* term = KeptDq(task(at), tile.group_head, tile.block);
      for (int64_t i = 0; i < tile_floats_; ++i) sum[i] += term[i];
    }
    StoreDq(tile, sum);
  }

  int threads_;
  const AttentionBackwardArgs& args_;
  const HeadShape& shape_;
  const TileKernels& kernels_;
  const BackwardWave& wave_;
  int64_t tile_bytes_;
  int64_t tile_floats_;
  WaveScratch shared_;
  int64_t task_bytes_;
  char* task_scratch_;
};

}  // namespace

void AttentionBackward(Queue* queue, const AttentionBackwardArgs& args) {
  const ArrayView<Segment>& segments = args.forward.segments;
  ZeroUncovered(queue, segments, Side::kQueries, args.dq);
  ZeroUncovered(queue, segments, Side::kKeys, args.dk);
  ZeroUncovered(queue, segments, Side::kKeys, args.dv);
  const HeadShape shape(args.forward);
  for (const BackwardWave& wave :
       PlanBackward(args.forward, shape, queue->threads)) {
    WavePass(queue, args, shape, wave).Run();
  }
}

}  // namespace lorica::cpu
