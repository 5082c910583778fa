// Readers of training data over tokenizers whose tokens can be counted by hand.
#pragma once

#include "runtime/text/chat_messages.hpp"
#include "runtime/train/dataset.hpp"
#include "tests/support/byte_model.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::test {

inline text::value read_golden(const std::string& name) {
  std::ifstream file(std::string(TANDEM_GOLDEN) + "/" + name);
  ensure(file.good(), "a golden file is missing");
  const std::string json((std::istreambuf_iterator<char>(file)), {});
  auto parsed = text::value::from_json(json);
  ensure(parsed.has_value(), "a golden file is broken");
  return std::move(*parsed);
}

// The control tokens that a template writes: <|im_end|>, <start_of_turn>, [INST]…
inline std::vector<std::string> control_tokens_of(const std::string& source) {
  static const std::regex spelled(R"(<\|[A-Za-z_]+\|>|<｜[^｜>]*｜>|<(?:start|end)_of_turn>|)"
                                  R"(\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|ARGS)\])");
  std::set<std::string> found = {"<s>", "</s>"};
  for (std::sregex_iterator at(source.begin(), source.end(), spelled), end; at != end; ++at)
    found.insert(at->str());
  found.erase("<|im_start|>");
  found.erase("<|im_end|>");
  return {found.begin(), found.end()};
}

// Reads with `source` as the template; its own control tokens are tokens, bytes the others.
inline train::reader reader_of(const std::string& source,
                               const std::vector<std::string>& ends = {}) {
  train::reader how;
  std::vector<std::string> control = control_tokens_of(source);
  for (const std::string& end : ends)
    if (end != "<|im_end|>" && std::find(control.begin(), control.end(), end) == control.end())
      control.push_back(end);
  auto tokenizer = text::tokenizer::from_json(byte_tokenizer_json(control));
  ensure(tokenizer.has_value(), "the byte tokenizer loads");
  how.tokenizer = *tokenizer;
  auto compiled = text::chat_template::compile(source);
  ensure(compiled.has_value(), "the template compiles");
  how.chat_template = std::make_shared<const text::chat_template>(*compiled);
  how.template_context.set("bos_token", "<s>");
  how.template_context.set("eos_token", "</s>");
  for (const std::string& end : ends) how.eos_ids.push_back(*how.tokenizer->id_of(end));
  return how;
}

// Runs of tokens that count, as text.
inline std::vector<std::string> counted_texts(const train::example& e, const train::reader& how) {
  std::vector<std::string> out;
  std::vector<text::token_id> run;
  const auto end_run = [&] {
    if (!run.empty()) out.push_back(how.tokenizer->decode(run, false));
    run.clear();
  };
  for (const text::token_id target : e.targets) {
    if (target < 0)
      end_run();
    else
      run.push_back(target);
  }
  end_run();
  return out;
}

}  // namespace tandem::test
