#include "runtime/train/example_tokens.hpp"

#include "runtime/train/chat_print.hpp"

#include <algorithm>

namespace tandem::train {
namespace {

constexpr text::encode_options plain = {.add_special_tokens = false, .parse_special = false};

// Ids of which those in [first, last) count. The first of all has nothing that could predict it.
void count(example& e, std::size_t first, std::size_t last) {
  for (std::size_t t = std::max<std::size_t>(first, 1); t < last; ++t) e.targets[t - 1] = e.ids[t];
}

result<example> checked(example e, std::string_view field) {
  if (e.ids.size() < 2)
    return error{errc::bad_file, "it has fewer than two tokens; there is nothing to predict",
                 std::string(field)};
  if (e.counted() == 0)
    return error{errc::bad_file, "no token of it counts; there is nothing to learn",
                 std::string(field)};
  return e;
}

}  // namespace

std::int64_t example::counted() const {
  return std::count_if(targets.begin(), targets.end(), [](token_id t) { return t >= 0; });
}

example_encoder::example_encoder(const reader& how) : how_(how), places_(how.tokenizer) {
  ensure(how.tokenizer != nullptr, "examples are read with a tokenizer");
  const text::tokenizer& t = *how.tokenizer;
  std::vector<token_id> apart = t.encode("\n", plain);
  for (const token_id id : t.encode("a", plain)) apart.push_back(id);
  begins_differently_ = t.encode("\na", plain) != apart;
}

result<example> example_encoder::encode(const example_form& form, std::size_t most_tokens) {
  most_tokens_ = most_tokens;
  return std::visit([this](const auto& f) { return encode(f); }, form);
}

result<example> example_encoder::encode(const chat_form& chat) {
  if (how_.chat_template == nullptr)
    return error{errc::bad_file,
                 how_.no_chat_reason.empty()
                     ? "this model has no chat template; write {\"prompt\", \"completion\"} or "
                       "{\"text\"}"
                     : how_.no_chat_reason,
                 "messages"};
  example e;
  const auto printed = print_chat(chat, how_, [&](const std::vector<text::prompt_piece>& pieces) {
    e.ids = how_.tokenizer->encode_prompt(pieces);
    e.targets.assign(e.ids.size(), -1);
    return e.ids.size() <= most_tokens_;
  });
  if (!printed) return printed.error();
  if (e.ids.size() > most_tokens_) return e;
  std::vector<std::size_t> bytes;
  for (const text::text_range turn : printed->turns) {
    bytes.push_back(turn.begin);
    bytes.push_back(turn.end);
  }
  const std::vector<std::size_t> places = places_.before(printed->pieces, e.ids, bytes);
  for (std::size_t i = 0; i < places.size(); i += 2) count(e, places[i], places[i + 1]);
  if (printed->open_end && !how_.eos_ids.empty()) {
    e.ids.push_back(how_.eos_ids.front());
    e.targets.push_back(-1);
    count(e, e.ids.size() - 1, e.ids.size());
  }
  return checked(std::move(e), "messages");
}

std::vector<token_id> example_encoder::encode_after(std::string_view text) const {
  const text::tokenizer& t = *how_.tokenizer;
  if (begins_differently_) {
    for (const std::string_view before : {"\n", ".", "a", "\n."}) {
      const std::vector<token_id> lead = t.encode(before, plain);
      std::vector<token_id> both = t.encode(std::string(before).append(text), plain);
      if (both.size() < lead.size() || !std::equal(lead.begin(), lead.end(), both.begin()))
        continue;
      both.erase(both.begin(), both.begin() + static_cast<std::ptrdiff_t>(lead.size()));
      return both;
    }
  }
  return t.encode(text, plain);
}

result<example> example_encoder::encode(const pair_form& pair) {
  example e;
  // As /v1/completions encodes a prompt; what follows is what it would have to answer.
  e.ids = how_.tokenizer->encode(pair.first, {});
  const std::size_t first = e.ids.size();
  for (const token_id id : encode_after(pair.second)) e.ids.push_back(id);
  if (!how_.eos_ids.empty()) e.ids.push_back(how_.eos_ids.front());
  e.targets.assign(e.ids.size(), -1);
  count(e, first, e.ids.size());
  return checked(std::move(e), {});
}

result<example> example_encoder::encode(const text_form& form) {
  example e;
  e.ids = how_.tokenizer->encode(form.text, {});
  if (!how_.eos_ids.empty() && (e.ids.empty() || e.ids.back() != how_.eos_ids.front()))
    e.ids.push_back(how_.eos_ids.front());
  e.targets.assign(e.ids.size(), -1);
  count(e, 1, e.ids.size());
  return checked(std::move(e), "text");
}

}  // namespace tandem::train
