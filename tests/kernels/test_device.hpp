// A device to compute on, with memory of its own, and the float64 truths to hold it against.
#pragma once

#include "kernels/cpu/cpu_backend.hpp"

#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace tandem::kernels::test {

using floats = std::vector<float>;

inline constexpr weight_format all_formats[] = {
    weight_format::f32,  weight_format::f16,  weight_format::bf16, weight_format::fp8,
    weight_format::q8_0, weight_format::q4_0, weight_format::q4_1};
inline const char* name_of(weight_format format) {
  constexpr const char* names[] = {"f32", "f16", "bf16", "fp8", "q8_0", "q4_0", "q4_1"};
  return names[static_cast<int>(format)];
}
inline bool is_block(weight_format format) { return format >= weight_format::q8_0; }

// Equal numbers on every machine, which std distributions don't promise.
class randoms {
 public:
  explicit randoms(unsigned seed) : engine_(seed) {}
  float next() { return static_cast<float>(engine_() % 20001U) / 10000.0F - 1.0F; }
  int below(int end) { return static_cast<int>(engine_() % static_cast<unsigned>(end)); }
  floats values(std::int64_t count, float scale = 1.0F) {
    floats out(static_cast<std::size_t>(count));
    for (float& v : out) v = scale * next();
    return out;
  }

 private:
  std::mt19937 engine_;
};

class aligned_bytes {
 public:
  explicit aligned_bytes(std::size_t size)
      : size_(size), data_(static_cast<std::byte*>(std::aligned_alloc(128, padded(size)))) {
    std::fill_n(data_.get(), padded(size), std::byte{0xA5});  // nobody may rely on zeros
  }
  std::byte* data() const { return data_.get(); }
  std::span<std::byte> span() const { return {data_.get(), size_}; }

 private:
  struct release {
    void operator()(std::byte* p) const { std::free(p); }
  };
  static std::size_t padded(std::size_t size) { return (size / 128 + 1) * 128; }
  std::size_t size_;
  std::unique_ptr<std::byte, release> data_;
};

inline step_limits roomy_limits() {
  return {.rows = 64,
          .widest_input = 1024,
          .experts = 8,
          .experts_per_row = 4,
          .expert_hidden = 96,
          .context_positions = 400,
          .query_heads = 16,
          .head_size = 256};
}

inline step_limits training_limits() {
  step_limits limits = roomy_limits();
  limits.rows = 320;
  limits.training = true;
  return limits;
}

class test_device {
 public:
  explicit test_device(cpu::instruction_set set, int threads = 1,
                       const step_limits& limits = roomy_limits())
      : device_(cpu::make_backend(options(set, threads))),
        workspace_(device_->workspace_bytes(limits)) {
    device_->attach_calling_thread();
    device_->bind_workspace(workspace_.span(), limits);
  }
  backend& operator*() { return *device_; }
  backend* operator->() { return device_.get(); }

  packed_matrix room(weight_format format, std::int64_t rows, std::int64_t columns) {
    memory_.emplace_back(device_->packed_bytes(format, rows, columns));
    return {format, rows, columns, memory_.back().data()};
  }
  packed_matrix packed(weight_format format, std::int64_t rows, std::int64_t columns,
                       const floats& values) {
    const packed_matrix w = room(format, rows, columns);
    device_->pack(w, 0, source(values, rows));
    return w;
  }
  packed_matrix packed_gated(weight_format format, std::int64_t rows, std::int64_t columns,
                             const floats& gate, const floats& up) {
    const packed_matrix w = room(format, 2 * rows, columns);
    device_->pack_gated(w, source(gate, rows), source(up, rows));
    return w;
  }
  // A float32 gradient for a matrix of these rows, every byte zero.
  packed_matrix gradient(std::int64_t rows, std::int64_t columns) {
    const packed_matrix dw = room(weight_format::f32, rows, columns);
    device_->fill_zero({dw.data, device_->packed_bytes(dw.format, rows, columns)});
    return dw;
  }
  floats unpacked(const packed_matrix& w) {
    floats out(static_cast<std::size_t>(w.rows * w.columns));
    for (std::int64_t r = 0; r < w.rows; ++r) device_->unpack_row(w, r, out.data() + r * w.columns);
    return out;
  }
  static row_source source(const floats& values, std::int64_t rows) {
    return {source_format::f32, reinterpret_cast<const std::byte*>(values.data()), rows, {}};
  }

 private:
  static cpu::cpu_options options(cpu::instruction_set set, int threads) {
    cpu::cpu_options chosen;
    chosen.set = set;
    for (int core = 0; core < threads; ++core) chosen.cores.push_back(core);
    return chosen;
  }
  std::unique_ptr<backend> device_;
  aligned_bytes workspace_;
  std::vector<aligned_bytes> memory_;
};

// The fast sets of this machine; the reference is compared with them, not with itself.
inline std::vector<cpu::instruction_set> fast_sets() {
  auto sets = cpu::supported_instruction_sets();
  sets.erase(sets.begin());
  return sets;
}

inline double largest_error(const floats& got, const std::vector<double>& truth) {
  double worst = 0.0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got[i]) - truth[i]);
    if (!(error <= worst)) worst = error;  // keeps NaN
  }
  return worst;
}

inline double largest_of(const std::vector<double>& truth) {
  double most = 0.0;
  for (const double t : truth) most = std::max(most, std::fabs(t));
  return most;
}

}  // namespace tandem::kernels::test
