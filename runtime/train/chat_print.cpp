#include "runtime/train/chat_print.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

namespace tandem::train {

using text::prompt_piece;
using text::text_range;
using text::value;

namespace {

constexpr std::string_view white_space = " \t\r\n";

// A print as one text, knowing which bytes are a user's (or the data's) words.
struct print {
  std::vector<prompt_piece> pieces;
  std::string text;
  std::vector<text_range> words;  // untrusted, apart, in order

  explicit print(std::vector<prompt_piece> from) : pieces(std::move(from)) {
    for (const prompt_piece& piece : pieces) {
      const std::size_t begin = text.size();
      text += piece.text;
      if (!piece.trusted && text.size() > begin) words.push_back({begin, text.size()});
    }
  }

  // Where the last word that begins before `limit` ends, at most `limit`; 0 without one.
  std::size_t words_end(std::size_t limit) const {
    const auto after = std::partition_point(words.begin(), words.end(),
                                            [&](text_range r) { return r.begin < limit; });
    return after == words.begin() ? 0 : std::min(std::prev(after)->end, limit);
  }
  // The words inside a range, joined.
  std::string words_in(text_range range) const {
    std::string out;
    auto at = std::partition_point(words.begin(), words.end(),
                                   [&](text_range r) { return r.end <= range.begin; });
    for (; at != words.end() && at->begin < range.end; ++at) {
      const std::size_t begin = std::max(at->begin, range.begin);
      out.append(text, begin, std::min(at->end, range.end) - begin);
    }
    return out;
  }
  // The first and the last place in a range where the template itself prints `what`.
  std::size_t find_printed(std::string_view what, text_range in) const {
    for (std::size_t at = text.find(what, in.begin); at != std::string::npos;
         at = text.find(what, at + 1)) {
      if (at + what.size() > in.end) break;
      if (words_in({at, at + what.size()}).empty()) return at;
    }
    return std::string::npos;
  }
  std::size_t rfind_printed(std::string_view what, text_range in) const {
    std::size_t found = std::string::npos;
    for (std::size_t at = in.begin; (at = find_printed(what, {at, in.end})) != std::string::npos;
         ++at)
      found = at;
    return found;
  }
};

// Whether `part` is `whole` with characters left out, white space aside.
bool is_within(std::string_view part, std::string_view whole) {
  const auto next = [](std::string_view& from) {
    from.remove_prefix(std::min(from.find_first_not_of(white_space), from.size()));
    return !from.empty();
  };
  for (; next(part); part.remove_prefix(1)) {
    const std::size_t at = whole.find(part.front());
    if (at == std::string_view::npos) return false;
    whole.remove_prefix(at + 1);
  }
  return true;
}

std::size_t common_prefix(std::string_view a, std::string_view b) {
  const auto at = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  auto size = static_cast<std::size_t>(at - a.begin());
  // Not inside a character.
  while (size > 0 && size < a.size() && (static_cast<unsigned char>(a[size]) & 0xC0U) == 0x80U)
    --size;
  return size;
}

class printer {
 public:
  printer(const chat_form& chat, const reader& how)
      : chat_(chat), how_(how), context_(how.template_context) {
    if (!chat.tools.is_null()) context_.set("tools", chat.tools);
  }

  result<chat_print> run(const std::function<bool(const std::vector<prompt_piece>&)>& go_on) {
    auto printed = render(chat_.messages, false);
    if (!printed)
      return error{errc::bad_file,
                   fmt::format("the model's chat template refuses it: {}", printed.error().detail),
                   "messages"};
    whole_.emplace(std::move(*printed));
    chat_print out;
    const bool placing = go_on(whole_->pieces);
    for (std::size_t i = 0; placing && i < chat_.messages.size(); ++i) {
      if (!chat_.counts[i]) continue;
      const auto turn = place(i);
      if (!turn) return turn.error();
      if (!out.turns.empty() && turn->begin < out.turns.back().end)
        return not_placed(i, "where it begins");
      out.turns.push_back(*turn);
      if (i + 1 == chat_.messages.size()) out.open_end = !ended_;
    }
    out.pieces = std::move(whole_->pieces);
    return out;
  }

 private:
  result<print> render(const value::array& messages, bool generation_prompt) {
    context_.set("messages", messages);
    context_.set("add_generation_prompt", generation_prompt);
    auto pieces = how_.chat_template->render_pieces(context_, {.now = how_.now});
    if (!pieces) return pieces.error();
    return print(std::move(*pieces));
  }
  value::array first_messages(std::size_t count) const {
    return {chat_.messages.begin(), chat_.messages.begin() + static_cast<std::ptrdiff_t>(count)};
  }

  result<text_range> place(std::size_t turn) {
    const auto begin = find_begin(turn);
    if (!begin) return not_placed(turn, "where it begins");
    const auto end = find_end(turn, *begin);
    if (!end) return not_placed(turn, "where it ends");
    const text_range found{*begin, *end};
    if (auto good = check_words(turn, found); !good) return good.error();
    return found;
  }

  // The words may be changed (thoughts of earlier turns left out), but not gone.
  result<void> check_words(std::size_t turn, text_range found) const {
    const value& message = chat_.messages[turn];
    const value* calls = message.find("tool_calls");
    if (calls == nullptr) {
      const std::string words = whole_->words_in(found);
      if (words.empty())
        return error{errc::bad_file, "the model's chat template prints nothing of this turn",
                     field(turn)};
      std::string own;
      for (const auto& [key, held] : *message.if_object())
        if (key != "role" && key != "content" && held.if_string() != nullptr)
          own += *held.if_string();
      own += *message.find("content")->if_string();
      // Thoughts are printed before the content, whichever stands first in the line.
      if (is_within(words, own)) return {};
      return not_placed(turn, "which words are its own");
    }
    for (const value& call : *calls->if_array()) {
      const std::string& name = *call.find("function")->find("name")->if_string();
      if (text::slice(whole_->text, found).find(name) == std::string_view::npos)
        return error{errc::bad_file,
                     "the model's chat template does not print tool calls, so they cannot be "
                     "learned; write them as content, or take a model whose template does",
                     field(turn) + ".tool_calls"};
    }
    return {};
  }

  static std::string field(std::size_t turn) { return fmt::format("messages[{}]", turn); }
  static error not_placed(std::size_t turn, std::string_view what) {
    return {errc::bad_file,
            fmt::format("the model's chat template prints this turn in a way that does not show "
                        "{}; end the conversation with it, or give it weight 0",
                        what),
            field(turn)};
  }

  // The end of what serving prints before the model speaks.
  std::optional<std::size_t> find_begin(std::size_t turn) {
    const std::string& text = whole_->text;
    const auto asked = render(first_messages(turn), true);
    if (asked && text.starts_with(asked->text)) return asked->text.size();
    // Earlier turns print differently once more follows, or the generation prompt holds what this
    // turn does not (an opened thought). Then the header is what the print and the generation
    // prompt share between the last word before this turn and its own first.
    const auto first = first_word(turn);
    if (!first) return std::nullopt;
    if (!asked) return std::nullopt;
    const std::string_view header =
        std::string_view(asked->text).substr(asked->words_end(asked->text.size()));
    const std::size_t before = whole_->words_end(*first);
    if (header.starts_with(std::string_view(text).substr(before, *first - before))) return *first;
    if (header.find_first_not_of(white_space) == std::string_view::npos) return std::nullopt;
    const std::size_t at = whole_->rfind_printed(header, {0, *first});
    if (at == std::string::npos) return std::nullopt;
    return at + header.size();
  }

  // Where the print changes when this message says something else: where its words begin.
  std::optional<std::size_t> first_word(std::size_t index) {
    const value& message = chat_.messages[index];
    if (message.find("tool_calls") != nullptr) {
      // The first of words alone, words beside the calls, and other calls that is printed.
      const auto words = change_at(index, without_calls(message));
      const auto beside = words ? words : change_at(index, message);
      return beside ? beside : change_at(index, with_other_call(message), false);
    }
    return change_at(index, message);
  }

  std::optional<std::size_t> change_at(std::size_t index, value other, bool other_words = true) {
    if (other_words) {
      for (const std::string_view own : {"reasoning_content", "reasoning", "thinking", "tool_plan"})
        if (other.find(own) != nullptr) other.set(own, "");
      other.set("content", stand_in());
    }
    value::array messages = chat_.messages;
    messages[index] = std::move(other);
    const auto changed = render(messages, false);
    if (!changed) return std::nullopt;
    const std::size_t at = common_prefix(whole_->text, changed->text);
    if (changed->text.compare(at, stand_in().size(), stand_in()) != 0) return std::nullopt;
    return at;
  }

  static value without_calls(const value& message) {
    value plain;
    for (const auto& [key, held] : *message.if_object())
      if (key != "tool_calls") plain.set(key, held);
    return plain;
  }

  value with_other_call(const value& message) {
    value::array calls = *message.find("tool_calls")->if_array();
    value function = *calls.front().find("function");
    function.set("name", stand_in());
    calls.front().set("function", std::move(function));
    value other = message;
    other.set("tool_calls", std::move(calls));
    return other;
  }

  // A private-use character that the print does not have.
  const std::string& stand_in() {
    for (char32_t c = 0xE000; stand_in_.empty() && c < 0xF8FF; ++c) {
      std::string candidate;
      text::append_utf8(candidate, c);
      if (whole_->text.find(candidate) == std::string::npos) stand_in_ = candidate;
    }
    ensure(!stand_in_.empty(), "a print with all 6,400 private-use characters");
    return stand_in_;
  }

  std::optional<std::size_t> find_end(std::size_t turn, std::size_t begin) {
    const std::string& text = whole_->text;
    const bool last = turn + 1 == chat_.messages.size();
    const auto alone = last ? std::optional<print>() : up_to(turn);
    const bool as_alone = last || (alone && text.starts_with(alone->text));
    std::size_t limit = text.size();
    if (!last) {
      const auto next = as_alone ? alone->text.size() : next_word(turn);
      if (!next || *next < begin) return std::nullopt;
      limit = *next;
    }
    // No model goes on behind a token that ends generation, so the first is the turn's own.
    ended_ = true;
    if (const auto stop = after_stop({begin, limit})) return *stop;
    // From the turn's last word on, all is the template's.
    const std::size_t words_end = std::max(begin, whole_->words_end(limit));
    const std::string_view tail = std::string_view(text).substr(words_end, limit - words_end);
    ended_ = after_control(tail).has_value();
    if (as_alone) {
      if (!ended_ && !last)
        if (const auto stop = stop_that_follows(limit)) return *stop;
      return words_end + without_space(tail).size();
    }
    // What stands between must be this turn's, then its end looks as it does alone, or has a
    // control token of its own.
    if (!alone ||
        !alone->words_in({0, alone->text.size()}).ends_with(whole_->words_in({begin, words_end})))
      return std::nullopt;
    const std::string_view own_tail =
        without_space(std::string_view(alone->text).substr(alone->words_end(alone->text.size())));
    if (tail.starts_with(own_tail)) return words_end + own_tail.size();
    if (const auto control = after_control(tail)) return words_end + *control;
    return std::nullopt;
  }

  // Where the words of the next message begin that is printed.
  std::optional<std::size_t> next_word(std::size_t turn) {
    for (std::size_t next = turn + 1; next < chat_.messages.size(); ++next)
      if (const auto at = first_word(next)) return at;
    return std::nullopt;
  }
  // Without the white space behind it, unless white space is all there is.
  static std::string_view without_space(std::string_view tail) {
    const std::size_t kept = tail.find_last_not_of(white_space) + 1;
    return kept == 0 ? tail : tail.substr(0, kept);
  }

  std::optional<print> up_to(std::size_t turn) {
    auto printed = render(first_messages(turn + 1), false);
    if (!printed) return std::nullopt;
    return std::move(*printed);
  }

  // Behind the first token that ends generation.
  std::optional<std::size_t> after_stop(text_range in) const {
    std::optional<std::size_t> found;
    for (const token_id id : how_.eos_ids) {
      const std::string_view spelling = how_.tokenizer->token_spelling(id);
      if (spelling.empty()) continue;
      const std::size_t at = whole_->find_printed(spelling, in);
      if (at == std::string::npos) continue;
      in.end = at + spelling.size();  // the next must end before
      found = in.end;
    }
    return found;
  }
  // Some families end a turn by the token that begins the next one (GLM's <|user|>).
  std::optional<std::size_t> stop_that_follows(std::size_t limit) const {
    const std::size_t at = whole_->text.find_first_not_of(white_space, limit);
    if (at == std::string::npos) return std::nullopt;
    const std::string_view rest = std::string_view(whole_->text).substr(at);
    for (const token_id id : how_.eos_ids) {
      const std::string_view spelling = how_.tokenizer->token_spelling(id);
      if (!spelling.empty() && rest.starts_with(spelling)) return at + spelling.size();
    }
    return std::nullopt;
  }
  // Behind the first control token of any kind.
  std::optional<std::size_t> after_control(std::string_view tail) const {
    const prompt_piece piece{std::string(tail), true};
    for (const token_id id : how_.tokenizer->encode_prompt({&piece, 1})) {
      if (!how_.tokenizer->is_special(id)) continue;
      const std::string_view spelling = how_.tokenizer->token_spelling(id);
      const std::size_t at = tail.find(spelling);
      if (at != std::string_view::npos) return at + spelling.size();
    }
    return std::nullopt;
  }

  const chat_form& chat_;
  const reader& how_;
  value context_;
  std::optional<print> whole_;
  bool ended_ = false;  // the turn placed last has a control token at its end
  std::string stand_in_;
};

}  // namespace

result<chat_print> print_chat(const chat_form& chat, const reader& how,
                              const std::function<bool(const std::vector<prompt_piece>&)>& go_on) {
  return printer(chat, how).run(go_on);
}

}  // namespace tandem::train
