// chat.completion and chat.completion.chunk.
#include "gateway/json_writer.hpp"
#include "gateway/openai/answer_format.hpp"
#include "gateway/openai/logprobs.hpp"

namespace tandem::gateway::openai {

namespace {

class chat_answer_format final : public answer_format {
 public:
  std::string_view object(bool streamed) const override {
    return streamed ? "chat.completion.chunk" : "chat.completion";
  }

  bool has_opening(const answer_context&) const override { return true; }

  void append_choice(std::string& out, const answer_context& context, const choice_part& part,
                     part_kind kind) const override {
    out += R"({"index":)";
    append_number(out, std::int64_t{part.index});
    append_words(out, part, kind);
    out += R"(,"logprobs":)";
    const bool with_logprobs =
        context.logprobs >= 0 && (kind == part_kind::whole || kind == part_kind::delta);
    if (with_logprobs)
      append_chat_logprobs(out, context, part.logprobs);
    else
      out += "null";
    const bool ends = kind == part_kind::whole || kind == part_kind::ending;
    if (ends) {
      out += R"(,"finish_reason":")";
      out += finish_name(part.finish);
      out += '"';
      append_stop_reason(out, context, part);
    } else {
      out += R"(,"finish_reason":null)";
    }
    if (context.return_token_ids && kind != part_kind::opening) {
      out += R"(,"token_ids":)";
      append_ids(out, part.tokens);
    }
    out += '}';
  }

  void append_extras(std::string& out, const answer_context& context,
                     const std::vector<choice_part>& choices) const override {
    if (context.return_token_ids) {
      out += R"(,"prompt_token_ids":)";
      append_ids(out, context.prompts.front());
    }
    if (context.prompt_logprobs >= 0) {
      out += R"(,"prompt_logprobs":)";
      append_prompt_logprobs(out, context, choices.front().prompt_logprobs);
    }
  }

 private:
  static void append_words(std::string& out, const choice_part& part, part_kind kind) {
    switch (kind) {
      case part_kind::whole:
        out += R"(,"message":{"role":"assistant","content":)";
        append_json_string(out, part.text);
        out += R"(,"refusal":null})";
        return;
      case part_kind::opening:
        out += R"(,"delta":{"role":"assistant","content":""})";
        return;
      case part_kind::delta:
        out += R"(,"delta":{"content":)";
        append_json_string(out, part.text);
        out += '}';
        return;
      case part_kind::ending:
        out += R"(,"delta":{})";
        return;
    }
  }
};

}  // namespace

const answer_format& chat_format() {
  static const chat_answer_format format;
  return format;
}

}  // namespace tandem::gateway::openai
