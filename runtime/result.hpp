// `result<T>`: the world said no. The code says which kind of no, the detail carries the numbers
// and what to do. One table (gateway/http_error.cpp) turns codes into HTTP statuses.
#pragma once

#include "kernels/ensure.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <variant>

namespace tandem {

enum class errc : std::uint8_t {
  bad_request,              // the caller's input is wrong; repeating it cannot help
  unauthorized,             // no key, or not a known one
  forbidden,                // a key without the right
  not_found,                // no such model, route, file or job
  context_length_exceeded,  // prompt and completion do not fit the model's context
  too_large,                // a body, header or count above its stated bound
  conflict,                 // the thing's state forbids this now
  overloaded,               // a bounded queue is full: try again later
  unavailable,              // starting, draining or gone
  timed_out,                // its deadline passed
  cancelled,                // the caller took it back
  bad_file,                 // a file is broken, truncated or not what it claims
  unsupported,              // understood, and not built here
  no_memory,                // does not fit the stated budget
  io,                       // the disk or the network said no
  internal,                 // a fault of ours that cost this request
};

struct error {
  errc code = errc::internal;
  std::string detail;  // one line: what happened, with the numbers, and what to do
  std::string param;   // the request field or setting at fault; empty when there is none
  bool operator==(const error&) const = default;
};

template <class T>
class [[nodiscard]] result {
 public:
  result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  result(tandem::error why) : state_(std::in_place_index<1>, std::move(why)) {}

  explicit operator bool() const { return state_.index() == 0; }
  bool has_value() const { return state_.index() == 0; }

  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(value()); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  T& value() {
    ensure(has_value(), "value() of a failed result");
    return *std::get_if<0>(&state_);
  }
  const T& value() const {
    ensure(has_value(), "value() of a failed result");
    return *std::get_if<0>(&state_);
  }
  const tandem::error& error() const {
    ensure(!has_value(), "error() of a good result");
    return *std::get_if<1>(&state_);
  }

 private:
  std::variant<T, tandem::error> state_;
};

template <>
class [[nodiscard]] result<void> {
 public:
  result() = default;
  result(tandem::error why) : why_(std::move(why)), good_(false) {}

  explicit operator bool() const { return good_; }
  bool has_value() const { return good_; }
  const tandem::error& error() const {
    ensure(!good_, "error() of a good result");
    return why_;
  }

 private:
  tandem::error why_;
  bool good_ = true;
};

}  // namespace tandem
