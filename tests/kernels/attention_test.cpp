#include "kernels/cpu/attention_split.hpp"
#include "kernels/cpu/half.hpp"
#include "tests/kernels/test_device.hpp"

#include <catch2/catch.hpp>

#include <set>
#include <tuple>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

// Sequences of some length of which the last `rows` are attended from; their KV blocks lie
// scattered in one cache.
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
  std::vector<sequence> sequences = {{1, 1}, {50, 1}, {33, 33}, {17, 1}, {300, 5}};

  int width() const { return (query_heads + 2 * key_heads) * head_size; }
  attention_shape shape() const {
    return {query_heads, 1.0F / std::sqrt(static_cast<float>(head_size)), window, softcap};
  }
};

float kept(kv_format format, float value) {
  return format == kv_format::f32 ? value : cpu::float_of_half(cpu::half_of(value));
}

// Stores the keys and values of every sequence, then attends from its last rows.
class attention_run {
 public:
  explicit attention_run(const attention_case& what) : what_(what) {
    randoms random(31);
    std::int32_t next = 0;
    for (const sequence& s : what.sequences) {
      qkv_.push_back(random.values(std::int64_t{s.length} * what.width()));
      std::vector<std::int32_t> blocks;
      for (std::int32_t p = 0; p < s.length; p += kv_block_positions) blocks.push_back(next++);
      blocks_.push_back(blocks);
    }
    // Blocks of a sequence are neither neighbours nor in order.
    for (auto& blocks : blocks_) {
      for (std::int32_t& b : blocks) b = (b * 7 + 3) % prime_above(next);
    }
    block_count_ = prime_above(next);
  }

  // Rows of the chosen sequences (all when empty), one after the other, N*H wide.
  floats operator()(test_device& device, const std::set<std::size_t>& chosen = {}) const {
    const kv_layout layout{what_.key_heads, what_.head_size, what_.format};
    // Blocks lie apart, as those of one layer among many do.
    const std::size_t stride = 3 * device->kv_block_bytes(layout);
    const aligned_bytes memory(stride * static_cast<std::size_t>(block_count_));
    std::fill_n(memory.data(), memory.span().size(), std::byte{0});
    const kv_cache cache{layout, memory.data(), stride};
    floats step;
    std::vector<attention_span> spans;
    for (std::size_t s = 0; s < qkv_.size(); ++s) {
      if (!chosen.empty() && !chosen.contains(s)) continue;
      store_all(device, s, cache);
      const auto& [length, rows] = what_.sequences[s];
      spans.push_back({static_cast<std::int32_t>(std::ssize(step) / what_.width()), rows,
                       length - rows, blocks_[s].data()});
      step.insert(step.end(), qkv_[s].end() - rows * what_.width(), qkv_[s].end());
    }
    const std::int64_t T = std::ssize(step) / what_.width();
    const std::int64_t out_width = what_.query_heads * what_.head_size;
    floats out(static_cast<std::size_t>(T * out_width), -7.0F);
    device->attention({step.data(), T, what_.width()}, spans, what_.shape(), cache,
                      {out.data(), T, out_width});
    return out;
  }

  std::vector<double> truth() const {
    std::vector<double> out;
    for (std::size_t s = 0; s < qkv_.size(); ++s) {
      const auto& [length, rows] = what_.sequences[s];
      for (std::int32_t p = length - rows; p < length; ++p) {
        for (int n = 0; n < what_.query_heads; ++n) true_head(s, p, n, out);
      }
    }
    return out;
  }

 private:
  static std::int32_t prime_above(std::int32_t n) {
    for (std::int32_t p = std::max(n, 8) + 1;; ++p) {
      bool prime = p % 7 != 0;
      for (std::int32_t d = 2; d * d <= p; ++d) prime = prime && p % d != 0;
      if (prime) return p;
    }
  }

  void store_all(test_device& device, std::size_t s, const kv_cache& cache) const {
    floats rows = qkv_[s];
    const std::int64_t T = what_.sequences[s].length;
    const attention_span span{0, static_cast<std::int32_t>(T), 0, blocks_[s].data()};
    device->rope_store({rows.data(), T, what_.width()}, {&span, 1}, what_.shape(), {}, nullptr,
                       nullptr, 0.0F, cache);
  }

  double at(std::size_t s, std::int32_t position, int head, int h) const {
    return static_cast<double>(
        qkv_[s][static_cast<std::size_t>(position * what_.width() + head * what_.head_size + h)]);
  }

  void true_head(std::size_t s, std::int32_t position, int n, std::vector<double>& out) const {
    const int g = n / (what_.query_heads / what_.key_heads);
    const std::int32_t from = what_.window > 0 ? std::max(0, position + 1 - what_.window) : 0;
    const auto stored = [&](std::int32_t p, int head, int h) {
      return static_cast<double>(kept(what_.format, static_cast<float>(at(s, p, head, h))));
    };
    std::vector<double> weights;
    double sum = 0.0;
    for (std::int32_t p = from; p <= position; ++p) {
      double score = 0.0;
      for (int h = 0; h < what_.head_size; ++h) {
        score += at(s, position, n, h) * stored(p, what_.query_heads + g, h);
      }
      score *= static_cast<double>(what_.shape().scale);
      const auto cap = static_cast<double>(what_.softcap);
      if (cap > 0.0) score = cap * std::tanh(score / cap);
      weights.push_back(std::exp(score));
      sum += weights.back();
    }
    for (int h = 0; h < what_.head_size; ++h) {
      double value = 0.0;
      for (std::int32_t p = from; p <= position; ++p) {
        value += weights[static_cast<std::size_t>(p - from)] *
                 stored(p, what_.query_heads + what_.key_heads + g, h);
      }
      out.push_back(value / sum);
    }
  }

  attention_case what_;
  std::vector<floats> qkv_;
  std::vector<std::vector<std::int32_t>> blocks_;
  std::int32_t block_count_ = 0;
};

void check_against_truth(const attention_case& what) {
  const attention_run run(what);
  const std::vector<double> truth = run.truth();
  double plain_error = 0.0;
  floats fast;
  for (const auto set : cpu::supported_instruction_sets()) {
    INFO(name_of(set) << " heads " << what.query_heads << "/" << what.key_heads << " H "
                      << what.head_size << " window " << what.window << " softcap "
                      << what.softcap);
    test_device one(set, 1);
    test_device two(set, 2);
    const floats got = run(one);
    const double error = largest_error(got, truth);
    if (set == cpu::instruction_set::reference) plain_error = error;
    CHECK(plain_error <= 2e-6);
    CHECK(error <= 2.0 * plain_error + 2e-7);
    CHECK(run(two) == got);
    if (set == cpu::instruction_set::reference) continue;
    if (fast.empty()) fast = got;
    CHECK(got == fast);  // every fast set gives the same bits
  }
}

}  // namespace

TEST_CASE("attention over ragged spans matches the truth for every head size") {
  for (const int H : {8, 16, 24, 64, 80, 96, 128, 256}) {
    attention_case what;
    what.head_size = H;
    check_against_truth(what);
  }
}

TEST_CASE("attention matches the truth for every grouping of query heads") {
  for (const auto& [N, K] : {std::pair{1, 1}, {4, 4}, {8, 1}, {14, 2}, {6, 3}, {16, 1}}) {
    attention_case what;
    what.query_heads = N;
    what.key_heads = K;
    what.head_size = 16;
    check_against_truth(what);
  }
}

TEST_CASE("a window hides what lies before it, whole blocks included") {
  for (const int window : {1, 5, 16, 17, 64, 1000}) {
    attention_case what;
    what.window = window;
    check_against_truth(what);
  }
}

TEST_CASE("a softcap bends large scores, and KV may be kept in float32") {
  for (const kv_format format : {kv_format::f16, kv_format::f32}) {
    for (const float softcap : {0.0F, 0.3F, 50.0F}) {
      attention_case what;
      what.softcap = softcap;
      what.format = format;
      check_against_truth(what);
    }
  }
}

TEST_CASE("a sequence's attention is the same to the bit whoever stands beside it") {
  const attention_case what;
  const attention_run run(what);
  for (const auto set : cpu::supported_instruction_sets()) {
    INFO(name_of(set));
    test_device device(set, 2);
    const floats together = run(device);
    floats one_by_one;
    for (std::size_t s = 0; s < what.sequences.size(); ++s) {
      const floats alone = run(device, {s});
      one_by_one.insert(one_by_one.end(), alone.begin(), alone.end());
    }
    CHECK(one_by_one == together);
  }
}

TEST_CASE("a prefill's rows are the rows decoded one by one, to the bit") {
  for (const int window : {0, 20}) {
    attention_case prefill;
    prefill.window = window;
    prefill.sequences = {{60, 60}};
    attention_case decode = prefill;
    for (const auto set : cpu::supported_instruction_sets()) {
      INFO(name_of(set) << " window " << window);
      test_device device(set, 2);
      const floats all = attention_run(prefill)(device);
      const std::size_t width = 9 * 64;
      for (const std::int32_t length : {1, 16, 17, 59, 60}) {
        decode.sequences = {{length, 1}};
        // The same seed gives the same first rows.
        const floats last = attention_run(decode)(device);
        const auto row = all.begin() + static_cast<std::ptrdiff_t>(width) * (length - 1);
        CHECK(last == floats(row, row + static_cast<std::ptrdiff_t>(width)));
      }
    }
  }
}

TEST_CASE("rope turns pairs, leaves the rest, norms heads first and stores what it turned") {
  const int N = 2, K = 1, H = 24, T = 7;
  const int width = (N + 2 * K) * H;
  for (const int rotary : {24, 16, 8, 0}) {
    for (const bool normed : {false, true}) {
      randoms random(41);
      const floats qkv = random.values(T * width);
      const floats q_norm = random.values(H);
      const floats k_norm = random.values(H);
      const floats angles = random.values(T * std::max(rotary, 1));
      const std::vector<std::int32_t> blocks{1, 0};
      const attention_span span{0, T, 13, blocks.data()};

      std::vector<double> truth;
      for (int t = 0; t < T; ++t) {
        for (int head = 0; head < N + K; ++head) {
          std::vector<double> x;
          double squares = 0.0;
          for (int h = 0; h < H; ++h) {
            x.push_back(
                static_cast<double>(qkv[static_cast<std::size_t>(t * width + head * H + h)]));
            squares += x.back() * x.back();
          }
          const floats& norm = head < N ? q_norm : k_norm;
          for (std::size_t h = 0; normed && h < x.size(); ++h) {
            x[h] *= static_cast<double>(norm[h]) / std::sqrt(squares / H + 1e-6);
          }
          std::vector<double> y = x;
          const auto half = static_cast<std::size_t>(rotary / 2);
          for (std::size_t i = 0; i < half; ++i) {
            const auto row = static_cast<std::size_t>(t * rotary);
            const auto cosine = static_cast<double>(angles[row + i]);
            const auto sine = static_cast<double>(angles[row + half + i]);
            y[i] = x[i] * cosine - x[i + half] * sine;
            y[i + half] = x[i + half] * cosine + x[i] * sine;
          }
          truth.insert(truth.end(), y.begin(), y.end());
        }
      }

      double plain_error = 0.0;
      for (const auto set : cpu::supported_instruction_sets()) {
        INFO(name_of(set) << " rotary " << rotary << (normed ? " normed" : ""));
        test_device device(set, 2);
        const kv_layout layout{K, H, kv_format::f32};
        const aligned_bytes memory(2 * device->kv_block_bytes(layout));
        const kv_cache cache{layout, memory.data(), device->kv_block_bytes(layout)};
        floats x = qkv;
        device->rope_store({x.data(), T, width}, {&span, 1}, {N, 1.0F, 0, 0.0F},
                           {rotary, angles.data()}, normed ? q_norm.data() : nullptr,
                           normed ? k_norm.data() : nullptr, 1e-6F, cache);
        floats turned;
        for (int t = 0; t < T; ++t) {
          turned.insert(turned.end(), x.begin() + t * width, x.begin() + t * width + (N + K) * H);
        }
        const double error = largest_error(turned, truth);
        if (set == cpu::instruction_set::reference) plain_error = error;
        CHECK(plain_error <= 3e-6);
        CHECK(error <= 2.0 * plain_error + 2e-7);

        // Attending with one visible position gives that position's value: it was stored.
        floats out(static_cast<std::size_t>(T * N * H));
        device->attention({x.data(), T, width}, {&span, 1}, {N, 1.0F, 1, 0.0F}, cache,
                          {out.data(), T, std::int64_t{N} * H});
        for (int t = 0; t < T; ++t) {
          for (int h = 0; h < H; ++h) {
            REQUIRE(out[static_cast<std::size_t>(t * N * H + h)] ==
                    qkv[static_cast<std::size_t>(t * width + (N + K) * H + h)]);
          }
        }
      }
    }
  }
}

TEST_CASE("threads share attention by work: each query once, no share far above the mean") {
  const std::vector<attention_span> spans{
      {0, 1, 4000, nullptr}, {1, 1, 10, nullptr}, {2, 100, 0, nullptr}, {102, 1, 0, nullptr}};
  const cpu::attention_split split{spans, 3, 3, 0, 12};
  for (const int threads : {1, 2, 3, 7}) {
    std::set<std::tuple<int, int, std::int64_t>> seen;
    std::vector<std::int64_t> work(static_cast<std::size_t>(threads));
    for (int t = 0; t < threads; ++t) {
      split.visit(t, threads, [&](const cpu::query_run& run) {
        CHECK(run.count >= 1);
        CHECK(run.count <= 12);
        const attention_span& span = spans[static_cast<std::size_t>(run.span)];
        for (std::int64_t q = run.first_query; q < run.first_query + run.count; ++q) {
          CHECK(seen.emplace(run.span, run.key_head, q).second);
          // Positions read, and 16 for what a query costs besides.
          work[static_cast<std::size_t>(t)] += span.first_position + q / 3 + 1 + 16;
        }
      });
    }
    CHECK(seen.size() == 103 * 9);
    std::int64_t total = 0;
    for (const std::int64_t w : work) total += w;
    for (const std::int64_t w : work) CHECK(w <= total / threads + 4017);
  }
}
