#include "actors/wire_context.hpp"

#include "actors/fault.hpp"

#include <fmt/format.h>
#include <caf/binary_deserializer.hpp>
#include <caf/binary_serializer.hpp>

#include <exception>

namespace tandem::actors {

namespace {

// CAF's own reader believes every size: a string of 4 GiB would be made before its bytes are
// missed.
class bounded_source final : public caf::deserializer {
 public:
  bounded_source(caf::execution_unit* context, std::span<const char> from)
      : caf::deserializer(context), inner_(context, from.data(), from.size()) {}

  std::size_t remaining() const { return inner_.remaining(); }
  // Of the message, as CAF writes them: "@<>+first+second".
  const std::string& types() const { return types_; }

  caf::error begin_object(std::uint16_t& number, std::string& name) override {
    auto fault = inner_.begin_object(number, name);
    if (!fault && types_.empty()) types_ = name;
    return fault;
  }
  caf::error end_object() override { return inner_.end_object(); }
  caf::error begin_sequence(std::size_t& size) override {
    if (auto fault = inner_.begin_sequence(size)) return fault;
    // Every element takes a byte at least (bits of vector<bool> are none of ours).
    if (size > inner_.remaining()) return caf::sec::end_of_stream;
    return caf::none;
  }
  caf::error end_sequence() override { return inner_.end_sequence(); }
  caf::error apply_raw(std::size_t size, void* into) override {
    if (size > inner_.remaining()) return caf::sec::end_of_stream;
    return inner_.apply_raw(size, into);
  }

 protected:
  caf::error apply_impl(std::int8_t& x) override { return inner_.apply(x); }
  caf::error apply_impl(std::uint8_t& x) override { return inner_.apply(x); }
  caf::error apply_impl(std::int16_t& x) override { return inner_.apply(x); }
  caf::error apply_impl(std::uint16_t& x) override { return inner_.apply(x); }
  caf::error apply_impl(std::int32_t& x) override { return inner_.apply(x); }
  caf::error apply_impl(std::uint32_t& x) override { return inner_.apply(x); }
  caf::error apply_impl(std::int64_t& x) override { return inner_.apply(x); }
  caf::error apply_impl(std::uint64_t& x) override { return inner_.apply(x); }
  caf::error apply_impl(float& x) override { return inner_.apply(x); }
  caf::error apply_impl(double& x) override { return inner_.apply(x); }
  caf::error apply_impl(long double& x) override { return inner_.apply(x); }
  caf::error apply_impl(std::string& x) override {
    std::size_t size = 0;
    if (auto fault = begin_sequence(size)) return fault;
    x.resize(size);
    return size == 0 ? caf::error() : inner_.apply_raw(size, x.data());
  }
  // Two and four bytes an element; no message of ours has one.
  caf::error apply_impl(std::u16string&) override { return caf::sec::unknown_type; }
  caf::error apply_impl(std::u32string&) override { return caf::sec::unknown_type; }

 private:
  caf::binary_deserializer inner_;
  std::string types_;
};

constexpr std::string_view no_types = "@<>";

error cannot(std::string_view what, caf::execution_unit& context, const caf::error& why) {
  return {errc::unsupported, fmt::format("{}: {}", what, context.system().render(why)), ""};
}

// Some paths of CAF throw; none of it may pass through UCX.
template <class Action>
result<void> guarded(std::string_view what, caf::execution_unit& context, Action action) {
  try {
    if (const caf::error fault = action()) return cannot(what, context, fault);
    return {};
  } catch (...) {
    return error{errc::unsupported, fmt::format("{}: {}", what, text_of(std::current_exception())),
                 ""};
  }
}

}  // namespace

result<void> write_message(wire_context& context, wire_message& what, transport::bytes& into) {
  return guarded("this message cannot leave the process", context, [&] {
    caf::binary_serializer sink(&context, into);
    return sink(what.stages, what.content);
  });
}

result<wire_message> read_message(wire_context& context, std::span<const char> from) {
  wire_message what;
  auto done = guarded("this node cannot read the message", context, [&]() -> caf::error {
    bounded_source source(&context, from);
    if (auto fault = source(what.stages, what.content)) return fault;
    // CAF takes a message with a type that it does not know for an empty one.
    if (what.content.empty() && source.types() != no_types)
      return caf::make_error(caf::sec::unknown_type, source.types());
    if (source.remaining() > 0)
      return caf::make_error(caf::sec::invalid_argument, "bytes behind its end");
    return caf::none;
  });
  if (!done) return done.error();
  return what;
}

result<void> write_reason(wire_context& context, const caf::error& why, transport::bytes& into) {
  return guarded("this reason cannot leave the process", context, [&] {
    caf::binary_serializer sink(&context, into);
    caf::error copy = why;
    return sink(copy);
  });
}

caf::error read_reason(wire_context& context, std::span<const char> from) {
  caf::error why;
  const auto done = guarded("reason", context, [&] {
    bounded_source source(&context, from);
    return source(why);
  });
  return done ? why : caf::make_error(caf::exit_reason::unknown);
}

}  // namespace tandem::actors
