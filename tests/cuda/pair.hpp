// A GPU beside the plain CPU kernels: the same numbers go to both, and what comes of them is
// compared. Without a GPU there is no pair, and a test says so and ends.
#pragma once

#include "kernels/cuda/cuda_backend.hpp"
#include "tests/kernels/test_device.hpp"

#include <catch2/catch.hpp>

#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace tandem::kernels::test {

// Memory of the GPU that lives as long as the test.
class gpu_memory {
 public:
  explicit gpu_memory(std::size_t bytes) : bytes_(cuda::allocate(0, bytes + 256)) {
    REQUIRE_FALSE(bytes_.empty());
  }
  ~gpu_memory() {
    if (!bytes_.empty()) cuda::release(0, bytes_);
  }
  gpu_memory(gpu_memory&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  gpu_memory& operator=(gpu_memory&&) = delete;
  std::byte* data() const { return bytes_.data(); }

 private:
  std::span<std::byte> bytes_;
};

class gpu_device {
 public:
  // Nothing where the machine has no GPU.
  static std::unique_ptr<gpu_device> open(const step_limits& limits = training_limits()) {
    const auto found = cuda::survey();
    if (found.gpus.empty() || !found.gpus[0].why_not.empty()) {
      WARN(
          "no GPU here, not run: " << (found.gpus.empty() ? found.why_not : found.gpus[0].why_not));
      return nullptr;
    }
    return std::make_unique<gpu_device>(limits);
  }
  explicit gpu_device(const step_limits& limits)
      : device_(cuda::make_backend({})), workspace_(device_->workspace_bytes(limits)) {
    device_->attach_calling_thread();
    device_->bind_workspace({workspace_.data(), device_->workspace_bytes(limits)}, limits);
  }

  backend& operator*() { return *device_; }
  backend* operator->() { return device_.get(); }

  // Bytes of garbage: nobody may rely on zeros.
  std::byte* room(std::size_t bytes) {
    memory_.emplace_back(bytes);
    const std::vector<std::byte> garbage(bytes, std::byte{0xA5});
    device_->write(garbage, memory_.back().data());
    return memory_.back().data();
  }
  template <class T>
  T* put(const std::vector<T>& values) {
    memory_.emplace_back(values.size() * sizeof(T));
    device_->write(std::as_bytes(std::span(values)), memory_.back().data());
    return reinterpret_cast<T*>(memory_.back().data());
  }
  template <class T>
  std::vector<T> get(const T* from, std::int64_t count) {
    std::vector<T> values(static_cast<std::size_t>(count));
    device_->read(std::as_bytes(std::span(from, values.size())),
                  reinterpret_cast<std::byte*>(values.data()));
    return values;
  }
  rows_out rows(const floats& values, std::int64_t count, std::int64_t columns) {
    return {put(values), count, columns};
  }
  rows_out room_for(std::int64_t count, std::int64_t columns) {
    return {
        reinterpret_cast<float*>(room(static_cast<std::size_t>(count * columns) * sizeof(float))),
        count, columns};
  }
  floats get(rows_in x) {
    REQUIRE(x.stride == x.columns);
    return get(x.data, x.rows * x.columns);
  }

  packed_matrix matrix_room(weight_format format, std::int64_t rows, std::int64_t columns) {
    return {format, rows, columns, room(device_->packed_bytes(format, rows, columns))};
  }
  packed_matrix packed(weight_format format, std::int64_t rows, std::int64_t columns,
                       const floats& values) {
    const packed_matrix w = matrix_room(format, rows, columns);
    device_->pack(w, 0, test_device::source(values, rows));
    return w;
  }
  packed_matrix packed_gated(weight_format format, std::int64_t rows, std::int64_t columns,
                             const floats& gate, const floats& up) {
    const packed_matrix w = matrix_room(format, 2 * rows, columns);
    device_->pack_gated(w, test_device::source(gate, rows), test_device::source(up, rows));
    return w;
  }
  packed_matrix gradient(std::int64_t rows, std::int64_t columns) {
    const packed_matrix dw = matrix_room(weight_format::f32, rows, columns);
    device_->fill_zero({dw.data, device_->packed_bytes(dw.format, rows, columns)});
    return dw;
  }
  floats unpacked(const packed_matrix& w) {
    floats out(static_cast<std::size_t>(w.rows * w.columns));
    for (std::int64_t r = 0; r < w.rows; ++r) device_->unpack_row(w, r, out.data() + r * w.columns);
    return out;
  }

 private:
  std::unique_ptr<backend> device_;
  gpu_memory workspace_;
  std::vector<gpu_memory> memory_;
};

// The worst difference, as a share of the largest number of the truth (1 where it is all small).
inline double worst_difference(const floats& got, const floats& truth) {
  REQUIRE(got.size() == truth.size());
  double largest = 1e-3;
  for (const float t : truth) largest = std::max(largest, std::fabs(static_cast<double>(t)));
  double worst = 0.0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got[i]) - static_cast<double>(truth[i]));
    if (!(error <= worst)) worst = error;  // keeps NaN
  }
  return worst / largest;
}

}  // namespace tandem::kernels::test
