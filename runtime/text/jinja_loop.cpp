// The `loop` variable of a for.
#include "runtime/text/jinja_library.hpp"
#include "runtime/text/jinja_objects.hpp"

namespace tandem::text::jinja {

std::optional<var> loop_object::advance() {
  std::optional<var> next = peeked_ ? std::move(after_) : items_->next();
  peeked_ = false;
  after_.reset();
  if (!next) return std::nullopt;
  ++index0_;
  before_ = std::move(current_);
  current_ = *next;
  return next;
}

const std::optional<var>& loop_object::peek() {
  if (!peeked_) {
    after_ = items_->next();
    peeked_ = true;
  }
  return after_;
}

std::optional<std::size_t> loop_object::length(interpreter& in) {
  if (length_) return length_;
  length_ = length_of(in, over_);
  if (length_) return length_;
  // Something that is made as it goes: make all of it now.
  std::vector<var> rest;
  while (auto next = items_->next()) {
    in.work.spend(2);
    rest.push_back(std::move(*next));
  }
  length_ = rest.size() + static_cast<std::size_t>(index0_ + 1) + (peeked_ && after_ ? 1 : 0);
  items_ = jinja::iterate(in, var::list(std::move(rest)));
  return length_;
}

std::optional<var> loop_object::attribute(interpreter& in, std::string_view name) {
  auto count = [&] { return static_cast<std::int64_t>(*length(in)); };
  if (name == "index") return var(index0_ + 1);
  if (name == "index0") return var(index0_);
  if (name == "first") return var(index0_ == 0);
  if (name == "last") return var(!peek().has_value());
  if (name == "length") return var(count());
  if (name == "revindex") return var(count() - index0_);
  if (name == "revindex0") return var(count() - index0_ - 1);
  if (name == "depth") return var(std::int64_t{depth0_} + 1);
  if (name == "depth0") return var(std::int64_t{depth0_});
  if (name == "previtem")
    return index0_ > 0 ? *before_ : var::undefined("there is no previous item");
  if (name == "nextitem") return peek() ? *peek() : var::undefined("there is no next item");
  auto self = std::static_pointer_cast<loop_object>(shared_from_this());
  if (name == "cycle")
    return make_function("cycle",
                         [self](interpreter&, arguments& args) { return self->cycle(args); });
  if (name == "changed")
    return make_function("changed", [self](interpreter& now, arguments& args) {
      return var(self->changed(now, args));
    });
  return std::nullopt;
}

var loop_object::cycle(const arguments& args) const {
  if (args.positional.empty()) refuse("TypeError: no items for cycling given");
  return args.positional[static_cast<std::size_t>(index0_) % args.positional.size()];
}

bool loop_object::changed(interpreter& in, arguments& args) {
  var now = var::tuple(args.positional);
  if (last_changed_ && equal(in.work, *last_changed_, now)) return false;
  last_changed_ = std::move(now);
  return true;
}

var loop_object::call(interpreter& in, arguments& args) {
  if (!recurse_)
    refuse("TypeError: The loop must have the 'recursive' marker to be called recursively.");
  if (args.positional.size() != 1 || !args.named.empty())
    refuse("TypeError: loop() takes exactly one argument");
  auto body = recurse_;
  return body(in, args.positional.front(), depth0_ + 1);
}

traced_text loop_object::repr(meter&, int) const {
  return {"<LoopContext " + std::to_string(index0_ + 1) + ">", true};
}

void loop_object::clear() {
  after_.reset();
  current_.reset();
  before_.reset();
  last_changed_.reset();
  recurse_ = nullptr;
}

}  // namespace tandem::text::jinja
