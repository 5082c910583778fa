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
  bool has_words(text_range range) const { return words_end(range.end) > range.begin; }
};

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

  result<chat_print> run() {
    auto printed = render(chat_.messages, false);
    if (!printed)
      return error{errc::bad_file,
                   fmt::format("the model's chat template refuses it: {}", printed.error().detail),
                   "messages"};
    whole_.emplace(std::move(*printed));
    chat_print out;
    for (std::size_t i = 0; i < chat_.messages.size(); ++i) {
      if (!chat_.counts[i]) continue;
      const auto turn = place(i);
      if (!turn) return turn.error();
      ensure(out.turns.empty() || out.turns.back().end <= turn->begin, "turns lie apart");
      out.turns.push_back(*turn);
      if (i + 1 == chat_.messages.size()) out.open_end = !has_control(turn_tail_);
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
    // The words may be changed (thoughts of earlier turns left out), but not gone.
    if (!whole_->has_words(found))
      return error{errc::bad_file, "the model's chat template prints nothing of this turn",
                   field(turn)};
    if (const value* calls = chat_.messages[turn].find("tool_calls"))
      for (const value& call : *calls->if_array()) {
        const std::string& name = *call.find("function")->find("name")->if_string();
        if (text::slice(whole_->text, found).find(name) == std::string_view::npos)
          return error{errc::bad_file,
                       "the model's chat template does not print tool calls, so they cannot be "
                       "learned; write them as content, or take a model whose template does",
                       field(turn) + ".tool_calls"};
      }
    return found;
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
    const std::size_t before = whole_->words_end(*first);
    if (!asked) return *first;
    const std::string_view header =
        std::string_view(asked->text).substr(asked->words_end(asked->text.size()));
    return before + common_prefix(std::string_view(text).substr(before, *first - before), header);
  }

  // Where the print changes when this message says something else: where its words begin.
  std::optional<std::size_t> first_word(std::size_t index) {
    for (const bool with_calls : {false, true}) {
      value::array others = chat_.messages;
      value& other = others[index];
      const bool calls = other.find("tool_calls") != nullptr;
      if (with_calls && !calls) break;
      for (const std::string_view own : {"reasoning_content", "reasoning", "thinking", "tool_plan"})
        if (other.find(own) != nullptr) other.set(own, "");
      other.set("content", stand_in());
      if (calls && !with_calls) {
        value plain;
        for (auto& [key, held] : *other.if_object())
          if (key != "tool_calls") plain.set(key, std::move(held));
        other = std::move(plain);
      }
      const auto changed = render(others, false);
      if (!changed) continue;
      const std::size_t at = common_prefix(whole_->text, changed->text);
      if (changed->text.compare(at, stand_in().size(), stand_in()) == 0) return at;
    }
    return std::nullopt;
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
    std::size_t limit = text.size();
    if (alone && text.starts_with(alone->text)) {
      limit = alone->text.size();
    } else if (!last) {
      const auto next = first_word(turn + 1);
      if (!next || *next < begin) return std::nullopt;
      limit = *next;
    }
    // From the turn's last word on, all is the template's.
    const std::size_t words_end = std::max(begin, whole_->words_end(limit));
    turn_tail_ = text.substr(words_end, limit - words_end);
    if (const auto stop = after_stop(turn_tail_)) return words_end + *stop;
    std::string own_tail = turn_tail_;
    if (alone && limit != alone->text.size())
      own_tail = alone->text.substr(alone->words_end(alone->text.size()));
    const std::size_t kept = own_tail.find_last_not_of(white_space) + 1;
    if (kept > 0) own_tail.resize(kept);  // else white space is all that ends the turn
    if (turn_tail_.starts_with(own_tail)) return words_end + own_tail.size();
    if (const auto control = after_control(turn_tail_)) return words_end + *control;
    return std::nullopt;
  }

  std::optional<print> up_to(std::size_t turn) {
    auto printed = render(first_messages(turn + 1), false);
    if (!printed) return std::nullopt;
    return std::move(*printed);
  }

  // Behind the first token that ends generation.
  std::optional<std::size_t> after_stop(std::string_view tail) const {
    std::optional<std::size_t> found;
    std::size_t begin = tail.size();
    for (const token_id id : how_.eos_ids) {
      const std::string_view spelling = how_.tokenizer->token_spelling(id);
      const std::size_t at = spelling.empty() ? std::string_view::npos : tail.find(spelling);
      if (at == std::string_view::npos || (found && at >= begin)) continue;
      begin = at;
      found = at + spelling.size();
    }
    return found;
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
  bool has_control(std::string_view tail) const {
    return after_stop(tail).has_value() || after_control(tail).has_value();
  }

  const chat_form& chat_;
  const reader& how_;
  value context_;
  std::optional<print> whole_;
  std::string turn_tail_;  // of the turn placed last: from its last word to the next message
  std::string stand_in_;
};

}  // namespace

result<chat_print> print_chat(const chat_form& chat, const reader& how) {
  return printer(chat, how).run();
}

}  // namespace tandem::train
