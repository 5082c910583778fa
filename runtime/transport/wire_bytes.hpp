// Little-endian numbers and counted texts, written to and read from bytes of a peer. A reader that
// meets its end, or a count above the caller's bound, fails once and for all: ask `good()` when
// everything is read, and use nothing before that.
#pragma once

#include "kernels/ensure.hpp"

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace tandem::transport {

using bytes = std::vector<char>;

class wire_writer {
 public:
  explicit wire_writer(bytes& into) : into_(into) {}

  template <std::unsigned_integral T>
  void number(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i)
      into_.push_back(static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i)));
  }
  void raw(std::span<const std::uint8_t> data) {
    into_.insert(into_.end(), data.begin(), data.end());
  }
  void raw(std::span<const char> data) { into_.insert(into_.end(), data.begin(), data.end()); }
  // A u16 in front; the caller keeps to it.
  void counted(std::span<const char> data) {
    ensure(data.size() <= 0xffff, "a counted text above 64 KiB");
    number(static_cast<std::uint16_t>(data.size()));
    raw(data);
  }

 private:
  bytes& into_;
};

class wire_reader {
 public:
  explicit wire_reader(std::span<const char> from) : left_(from) {}

  bool good() const { return good_; }
  bool at_end() const { return good_ && left_.empty(); }
  std::span<const char> rest() const { return left_; }
  std::size_t left() const { return left_.size(); }

  template <std::unsigned_integral T>
  T number() {
    T value = 0;
    const auto data = raw(sizeof(T));
    for (std::size_t i = 0; i < data.size(); ++i)
      value = static_cast<T>(
          value | static_cast<T>(static_cast<std::uint64_t>(static_cast<std::uint8_t>(data[i]))
                                 << (8 * i)));
    return value;
  }
  // `count` bytes, or none when there are fewer.
  std::span<const char> raw(std::size_t count) {
    if (!good_ || count > left_.size()) {
      good_ = false;
      return {};
    }
    const auto taken = left_.first(count);
    left_ = left_.subspan(count);
    return taken;
  }
  template <std::size_t N>
  void raw(std::array<std::uint8_t, N>& into) {
    const auto data = raw(N);
    for (std::size_t i = 0; i < data.size(); ++i) into[i] = static_cast<std::uint8_t>(data[i]);
  }
  std::string counted(std::size_t most) {
    const std::size_t count = number<std::uint16_t>();
    if (count > most) good_ = false;
    const auto data = raw(count);
    return {data.begin(), data.end()};
  }

 private:
  std::span<const char> left_;
  bool good_ = true;
};

}  // namespace tandem::transport
