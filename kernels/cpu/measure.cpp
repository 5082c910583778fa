#include "kernels/cpu/measure.hpp"

#include "kernels/cpu/kernel_table.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace tandem::kernels::cpu {
namespace {

using clock = std::chrono::steady_clock;

constexpr std::size_t memory_alignment = 4096;

struct release {
  void operator()(std::byte* p) const { std::free(p); }
};
using memory = std::unique_ptr<std::byte, release>;

memory allocate(std::size_t bytes) {
  const std::size_t whole = (bytes / memory_alignment + 1) * memory_alignment;
  memory block(static_cast<std::byte*>(std::aligned_alloc(memory_alignment, whole)));
  std::memset(block.get(), 0, whole);
  return block;
}

// The best time of one call in seconds: other programs only ever add to it.
double best_time(double budget_s, function_ref<void()> call) {
  double best = 1e9;
  const auto end = clock::now() + std::chrono::duration<double>(budget_s);
  do {
    const auto start = clock::now();
    call();
    best = std::min(best, std::chrono::duration<double>(clock::now() - start).count());
  } while (clock::now() < end);
  return best;
}

struct peaks {
  double int8_operations = 0.0;  // a second, all threads
  double float_operations = 0.0;
  double read_bytes = 0.0;
};

// Reads like a thread that streams weights: its own contiguous part, a line at a time.
std::uint64_t read_all(const std::byte* data, std::int64_t bytes) {
  std::uint64_t sums[8] = {};
  for (std::int64_t at = 0; at + 64 <= bytes; at += 64) {
    std::uint64_t line[8];
    std::memcpy(line, data + at, 64);
    for (int i = 0; i < 8; ++i) sums[i] ^= line[i];
  }
  std::uint64_t all = 0;
  for (const std::uint64_t s : sums) all ^= s;
  return all;
}

const char* name_of(weight_format format) {
  constexpr const char* names[] = {"f32", "f16", "bf16", "fp8", "q8_0", "q4_0", "q4_1"};
  return names[static_cast<int>(format)];
}

class bench {
 public:
  bench(const cpu_options& options, bool quick)
      : set_(name_of_set(options)),
        table_(table_of(options.set)),
        budget_s_(quick ? 0.006 : 0.08),
        // More than a last-level cache holds, so that each call finds its weights in memory.
        cold_bytes_(quick ? std::size_t{40} << 20 : std::size_t{128} << 20),
        device_(make_backend(options)),
        limits_{.rows = 512,
                .widest_input = 1536,
                .context_positions = 1024,
                .query_heads = 9,
                .head_size = 64},
        workspace_(allocate(device_->workspace_bytes(limits_) + memory_alignment)) {
    device_->attach_calling_thread();
    device_->bind_workspace({workspace_.get(), device_->workspace_bytes(limits_)}, limits_);
  }

  std::vector<kernel_measurement> run(bool quick) {
    measure_peaks();
    const std::vector<weight_format> formats{
        weight_format::q4_1, weight_format::q8_0, weight_format::q4_0, weight_format::fp8,
        weight_format::bf16, weight_format::f16,  weight_format::f32};
    for (const weight_format format : formats) {
      measure_linear(
          format, 1536, 576,
          quick ? std::vector<std::int64_t>{1, 64} : std::vector<std::int64_t>{1, 4, 16, 64, 512});
      if (quick) continue;
      measure_linear(format, 576, 1536, {1, 16, 512});
      measure_linear(format, 576, 576, {1, 16, 512});
    }
    if (!quick) measure_linear(weight_format::q8_0, 49152, 576, {1, 16});
    measure_attention(1, 512);
    measure_attention(quick ? 64 : 512, 0);
    return std::move(results_);
  }

 private:
  static std::string name_of_set(const cpu_options& options) {
    return std::string(cpu::name_of(options.set));
  }

  void note_peak(const char* kernel, double seconds, double operations, double bytes,
                 const char* limit) {
    results_.push_back({set_, kernel, 0, 0, 0, seconds * 1e6, operations / seconds * 1e-9,
                        bytes / seconds * 1e-9, 1.0, limit});
  }

  void measure_peaks() {
    // Many small parts, handed out as threads come free: one that starts late costs little.
    const std::int64_t threads = device_->thread_count();
    const std::int64_t parts = 16 * threads;
    const auto loop = [&](float (*multiply)(std::int64_t), std::int64_t rounds) {
      return best_time(budget_s_, [&] {
        device_->for_each(parts, [&](std::int64_t) { sink_ += multiply(rounds) > 0.0F ? 1 : 2; });
      });
    };
    const std::int64_t rounds = 2'000;
    const auto total = static_cast<double>(rounds * parts);
    const double bytes_s = loop(table_.peak_bytes, rounds);
    const double byte_operations = total * static_cast<double>(table_.peak_byte_operations);
    peaks_.int8_operations = byte_operations / bytes_s;
    note_peak("peak int8", bytes_s, byte_operations, 0.0, "int8");
    const double floats_s = loop(table_.peak_floats, rounds);
    const double float_operations = total * static_cast<double>(table_.peak_float_operations);
    peaks_.float_operations = float_operations / floats_s;
    note_peak("peak float", floats_s, float_operations, 0.0, "float");

    const memory data = allocate(cold_bytes_);
    const auto part = static_cast<std::int64_t>(cold_bytes_) / threads;
    const double read_s = best_time(budget_s_, [&] {
      device_->for_each(threads, [&](std::int64_t t) {
        if (read_all(data.get() + t * part, part) == 1) sink_ += 1;
      });
    });
    peaks_.read_bytes = static_cast<double>(part * threads) / read_s;
    note_peak("read", read_s, 0.0, static_cast<double>(part * threads), "memory");
  }

  void note(std::string kernel, std::int64_t rows, std::int64_t inputs, std::int64_t outputs,
            double seconds, double operations, double bytes, bool int8) {
    const double compute_s = operations / (int8 ? peaks_.int8_operations : peaks_.float_operations);
    const double memory_s = bytes / peaks_.read_bytes;
    const char* limit = memory_s > compute_s ? "memory" : int8 ? "int8" : "float";
    results_.push_back({set_, std::move(kernel), rows, inputs, outputs, seconds * 1e6,
                        operations / seconds * 1e-9, bytes / seconds * 1e-9,
                        std::max(compute_s, memory_s) / seconds, limit});
  }

  void measure_linear(weight_format format, std::int64_t N, std::int64_t K,
                      const std::vector<std::int64_t>& heights) {
    const std::size_t bytes = device_->packed_bytes(format, N, K);
    const std::size_t copies = cold_bytes_ / bytes + 1;
    const memory data = allocate(copies * bytes);
    std::vector<float> rows(static_cast<std::size_t>(16 * K));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i] = static_cast<float>(static_cast<int>(i * 7919 % 201) - 100) / 1000.0F;
    }
    packed_matrix w{format, N, K, data.get()};
    for (std::int64_t n = 0; n < N; n += 16) {
      device_->pack(w, n,
                    {source_format::f32,
                     reinterpret_cast<const std::byte*>(rows.data()),
                     std::min<std::int64_t>(16, N - n),
                     {}});
    }
    for (std::size_t c = 1; c < copies; ++c) {
      std::memcpy(data.get() + c * bytes, data.get(), bytes);
    }
    for (const std::int64_t T : heights) {
      const std::vector<float> x(static_cast<std::size_t>(T * K), 0.3F);
      std::vector<float> y(static_cast<std::size_t>(T * N));
      const auto multiply = [&](std::size_t copy) {
        w.data = data.get() + copy * bytes;
        device_->linear({x.data(), T, K}, w, nullptr, false, {y.data(), T, N});
      };
      // Few rows wait for memory: a sample is a pass over all copies, of which no cache holds much.
      constexpr std::int64_t few_rows = 8;
      std::size_t copy = 0;
      const double seconds = T <= few_rows ? best_time(budget_s_,
                                                       [&] {
                                                         for (std::size_t c = 0; c < copies; ++c)
                                                           multiply(c);
                                                       }) /
                                                 static_cast<double>(copies)
                                           : best_time(budget_s_, [&] {
                                               multiply(copy);
                                               copy = (copy + 1) % copies;
                                             });
      note(std::string("linear ") + name_of(format), T, K, N, seconds,
           2.0 * static_cast<double>(T * K * N), static_cast<double>(bytes),
           format >= weight_format::q8_0);
    }
  }

  // One sequence of nine heads over three key heads of 64.
  void measure_attention(std::int32_t T, std::int32_t context) {
    const kv_layout layout{3, 64, kv_format::f16};
    const std::int32_t positions = context + T;
    std::vector<std::int32_t> blocks;
    for (std::int32_t p = 0; p < positions; p += kv_block_positions) {
      blocks.push_back(p / kv_block_positions);
    }
    const memory cache = allocate(device_->kv_block_bytes(layout) * blocks.size());
    const attention_span span{0, T, context, blocks.data()};
    const std::vector<float> qkv(static_cast<std::size_t>(T) * 960, 0.1F);
    std::vector<float> out(static_cast<std::size_t>(T) * 576);
    const double seconds = best_time(budget_s_, [&] {
      device_->attention({qkv.data(), T, 960}, {&span, 1}, {9, 0.125F, 0, 0.0F},
                         {layout, cache.get(), device_->kv_block_bytes(layout)},
                         {out.data(), T, 576});
    });
    const double pairs = static_cast<double>(T) * (context + 0.5 * (T + 1));
    note("attention f16", T, positions, 576, seconds, 4.0 * 576 * pairs,
         static_cast<double>(positions) * 3 * 64 * 4, false);
  }

  std::string set_;
  const kernel_table& table_;
  double budget_s_;
  std::size_t cold_bytes_;
  std::unique_ptr<backend> device_;
  step_limits limits_;
  memory workspace_;
  peaks peaks_;
  std::atomic<int> sink_{0};  // keeps the compiler from dropping what is measured
  std::vector<kernel_measurement> results_;
};

}  // namespace

std::vector<kernel_measurement> measure_kernels(const cpu_options& options, bool quick) {
  return bench(options, quick).run(quick);
}

}  // namespace tandem::kernels::cpu
