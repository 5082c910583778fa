#include "tests/cuda/pair.hpp"

#include <algorithm>
#include <set>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

// Sequences of some length of which the last `rows` are attended from.
struct sequence {
  std::int32_t length;
  std::int32_t rows;
};

struct attention_case {
  int query_heads = 9;
  int key_heads = 3;
  int head_size = 64;
  int window = 0;
  float softcap = 0.0F;
  kv_format format = kv_format::f16;
  std::vector<sequence> sequences = {{1, 1}, {50, 1}, {33, 33}, {17, 1}, {300, 5}, {700, 1}};

  std::int64_t width() const { return std::int64_t{query_heads + 2 * key_heads} * head_size; }
  std::int64_t out_width() const { return std::int64_t{query_heads} * head_size; }
  attention_shape shape() const {
    return {query_heads, 1.0F / std::sqrt(static_cast<float>(head_size)), window, softcap};
  }
  kv_layout layout() const { return {key_heads, head_size, format}; }
  std::int32_t longest() const {
    std::int32_t most = 0;
    for (const sequence& s : sequences) most = std::max(most, s.length);
    return most;
  }
  step_limits limits() const {
    step_limits limits = roomy_limits();
    limits.rows = 4096;
    limits.context_positions = longest();
    limits.query_heads = query_heads;
    limits.head_size = head_size;
    return limits;
  }
};

// What every sequence's rows are, and where its blocks lie: neither neighbours nor in order.
class attention_run {
 public:
  explicit attention_run(const attention_case& what) : what_(what) {
    randoms random(31);
    for (const sequence& s : what.sequences) {
      qkv_.push_back(random.values(s.length * what.width()));
      std::vector<std::int32_t> blocks;
      for (std::int32_t p = 0; p < s.length; p += kv_block_positions) blocks.push_back(blocks_++);
      of_.push_back(blocks);
    }
    for (auto& blocks : of_) {
      for (std::int32_t& b : blocks) b = blocks_ - 1 - b;
    }
  }

  // Rows of the chosen sequences (all when empty), one after the other; of each its last `rows`, or
  // the one `from_end` rows before its end.
  floats on_gpu(gpu_device& gpu, const std::set<std::size_t>& chosen = {}, int from_end = 0) const {
    const std::size_t stride = 2 * gpu->kv_block_bytes(what_.layout());
    std::byte* const memory = gpu.room(stride * static_cast<std::size_t>(blocks_));
    gpu->fill_zero({memory, stride * static_cast<std::size_t>(blocks_)});
    const kv_cache cache{what_.layout(), memory, stride};
    store_all(*gpu, cache, [&](const floats& x) { return gpu.put(x); });
    std::vector<attention_span> spans;
    const floats step = rows_of(chosen, from_end, spans);
    const std::int64_t T = std::ssize(step) / what_.width();
    const rows_out out = gpu.room_for(T, what_.out_width());
    gpu->attention(gpu.rows(step, T, what_.width()), spans, what_.shape(), cache, out);
    return gpu.get(out);
  }
  floats on_cpu() const {
    test_device cpu(cpu::instruction_set::reference, 1, what_.limits());
    const std::size_t stride = cpu->kv_block_bytes(what_.layout());
    const aligned_bytes memory(stride * static_cast<std::size_t>(blocks_));
    std::fill_n(memory.data(), memory.span().size(), std::byte{0});
    const kv_cache cache{what_.layout(), memory.data(), stride};
    std::vector<floats> kept;
    kept.reserve(qkv_.size());
    store_all(*cpu, cache, [&](const floats& x) { return kept.emplace_back(x).data(); });
    std::vector<attention_span> spans;
    floats step = rows_of({}, 0, spans);
    const std::int64_t T = std::ssize(step) / what_.width();
    floats out(static_cast<std::size_t>(T * what_.out_width()));
    cpu->attention({step.data(), T, what_.width()}, spans, what_.shape(), cache,
                   {out.data(), T, what_.out_width()});
    return out;
  }

 private:
  template <class Place>
  void store_all(backend& device, const kv_cache& cache, const Place& place) const {
    for (std::size_t s = 0; s < qkv_.size(); ++s) {
      const std::int32_t length = what_.sequences[s].length;
      const attention_span span{0, length, 0, of_[s].data()};
      device.rope_store({place(qkv_[s]), length, what_.width()}, {&span, 1}, what_.shape(), {},
                        nullptr, nullptr, 0.0F, cache);
    }
  }
  floats rows_of(const std::set<std::size_t>& chosen, int from_end,
                 std::vector<attention_span>& spans) const {
    floats step;
    for (std::size_t s = 0; s < qkv_.size(); ++s) {
      if (!chosen.empty() && !chosen.contains(s)) continue;
      auto [length, rows] = what_.sequences[s];
      if (from_end > 0) {
        length -= from_end - 1;
        rows = 1;
      }
      spans.push_back({static_cast<std::int32_t>(std::ssize(step) / what_.width()), rows,
                       length - rows, of_[s].data()});
      const auto begin = qkv_[s].begin() + (length - rows) * what_.width();
      step.insert(step.end(), begin, begin + rows * what_.width());
    }
    return step;
  }

  attention_case what_;
  std::vector<floats> qkv_;
  std::vector<std::vector<std::int32_t>> of_;
  std::int32_t blocks_ = 0;
};

// Float16 rounds queries and weights to 2^-11 each, which sums make smaller, not larger.
double bound_of(kv_format format) { return format == kv_format::f16 ? 1e-3 : 1e-5; }

void check(const attention_case& what) {
  auto gpu = gpu_device::open(what.limits());
  if (gpu == nullptr) return;
  INFO("heads " << what.query_heads << "/" << what.key_heads << " H " << what.head_size
                << " window " << what.window << " softcap " << what.softcap << " "
                << (what.format == kv_format::f16 ? "f16" : "f32"));
  const attention_run run(what);
  const floats together = run.on_gpu(*gpu);
  CHECK(worst_difference(together, run.on_cpu()) <= bound_of(what.format));
  CHECK(run.on_gpu(*gpu) == together);
  // Each sequence alone, and its last row as a step of its own: the same bits.
  auto place = together.begin();
  for (std::size_t s = 0; s < what.sequences.size(); ++s) {
    const auto size = what.sequences[s].rows * what.out_width();
    CHECK(run.on_gpu(*gpu, {s}) == floats(place, place + size));
    CHECK(run.on_gpu(*gpu, {s}, 1) == floats(place + size - what.out_width(), place + size));
    place += size;
  }
}

}  // namespace

TEST_CASE("the GPU's attention is the CPU's, for every head size", "[gpu]") {
  for (const kv_format format : {kv_format::f16, kv_format::f32}) {
    for (const int H : {8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256}) {
      attention_case what;
      what.head_size = H;
      what.format = format;
      check(what);
    }
  }
}

TEST_CASE("the GPU's attention is the CPU's, for every grouping of heads", "[gpu]") {
  for (const kv_format format : {kv_format::f16, kv_format::f32}) {
    for (const auto& [N, K] :
         {std::pair{1, 1}, {4, 4}, {8, 1}, {14, 2}, {32, 8}, {16, 1}, {20, 1}, {71, 1}}) {
      attention_case what;
      what.query_heads = N;
      what.key_heads = K;
      what.head_size = 32;
      what.format = format;
      what.sequences.push_back({90, 70});
      check(what);
    }
  }
}

TEST_CASE("on the GPU a window hides what lies before it, whole tiles and splits too", "[gpu]") {
  for (const kv_format format : {kv_format::f16, kv_format::f32}) {
    for (const int window : {1, 5, 17, 64, 100, 300, 1000}) {
      attention_case what;
      what.window = window;
      what.format = format;
      what.sequences = {{700, 1}, {600, 600}, {65, 2}, {1025, 1}};
      check(what);
    }
  }
}

TEST_CASE("on the GPU a softcap bends large scores", "[gpu]") {
  for (const kv_format format : {kv_format::f16, kv_format::f32}) {
    for (const float softcap : {0.3F, 50.0F}) {
      attention_case what;
      what.softcap = softcap;
      what.format = format;
      check(what);
    }
  }
}

TEST_CASE("on the GPU a long prefill's rows are the rows decoded one by one, to the bit", "[gpu]") {
  for (const kv_format format : {kv_format::f16, kv_format::f32}) {
    for (const int window : {0, 333}) {
      attention_case what;
      what.query_heads = 8;
      what.key_heads = 2;
      what.head_size = 128;
      what.window = window;
      what.format = format;
      what.sequences = {{1100, 1100}};
      auto gpu = gpu_device::open(what.limits());
      if (gpu == nullptr) return;
      const attention_run run(what);
      const floats all = run.on_gpu(*gpu);
      CHECK(worst_difference(all, run.on_cpu()) <= bound_of(format));
      for (const int from_end : {1, 2, 64, 77, 300, 588, 589, 844, 845, 1000, 1099, 1100}) {
        INFO("the row " << from_end << " from the end, window " << window);
        const auto row = all.end() - from_end * what.out_width();
        CHECK(run.on_gpu(*gpu, {}, from_end) == floats(row, row + what.out_width()));
      }
    }
  }
}

TEST_CASE("the GPU attends over thousands of positions, and without room for parts", "[gpu]") {
  attention_case what;
  what.query_heads = 4;
  what.key_heads = 1;
  what.sequences = {{9000, 1}, {3, 1}, {5000, 2}, {256, 1}, {257, 1}};
  const attention_run run(what);
  floats with_parts;
  for (const bool room : {true, false}) {
    step_limits limits = what.limits();
    if (!room) limits = {.rows = 1, .widest_input = 64, .query_heads = 1, .head_size = 16};
    auto gpu = gpu_device::open(limits);
    if (gpu == nullptr) return;
    const floats got = run.on_gpu(*gpu);
    if (room) {
      with_parts = got;
      CHECK(worst_difference(got, run.on_cpu()) <= bound_of(what.format));
    } else {
      CHECK(got == with_parts);
    }
  }
}
