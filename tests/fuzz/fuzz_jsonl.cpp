// Any bytes as a file of training data, checked and read with one of several chat templates: it
// ends, says at most ten faults in order, and what it takes holds the rules of examples.
#include "runtime/train/dataset.hpp"
#include "runtime/train/jsonl_lines.hpp"
#include "tests/support/byte_model.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

using namespace tandem;

namespace {

constexpr std::array<std::string_view, 4> templates = {
    test::chatml,
    // Thoughts of earlier turns are left out, the last turn has one: as Qwen3 does.
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content.split('</think>')[-1] | trim }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor "
    "%}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
    // No generation prompt, no end token of its own.
    "{{ tools | tojson if tools else '' }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n"
    "{% endfor %}",
    // Tells apart what follows, and prints some things twice.
    "{{ messages[0].content }}{% for m in messages %}{% if not loop.last %}[{{ m.content }}]{% "
    "else "
    "%}<|im_start|>{{ m.content }}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"};

const train::reader& reader_of(std::size_t index) {
  static const auto readers = [] {
    std::array<train::reader, templates.size()> all;
    auto tokenizer = text::tokenizer::from_json(test::byte_tokenizer_json());
    ensure(tokenizer.has_value(), "the byte tokenizer loads");
    for (std::size_t i = 0; i < templates.size(); ++i) {
      auto compiled = text::chat_template::compile(templates[i]);
      ensure(compiled.has_value(), "the fuzzer's own template compiles");
      all[i].tokenizer = *tokenizer;
      all[i].chat_template = std::make_shared<const text::chat_template>(*compiled);
      all[i].eos_ids = {258};
    }
    return all;
  }();
  return readers[index % readers.size()];
}

void check_examples(const train::dataset& data, std::int64_t most_tokens) {
  ensure(!data.examples.empty(), "a good file has examples");
  std::int64_t tokens = 0;
  std::int64_t counted = 0;
  for (const train::example& e : data.examples) {
    ensure(e.ids.size() >= 2 && e.ids.size() == e.targets.size(), "ids and targets side by side");
    ensure(std::int64_t(e.ids.size()) <= most_tokens, "no longer than asked");
    ensure(e.targets.back() == -1 && e.counted() > 0, "something counts, the last token not");
    for (std::size_t t = 0; t + 1 < e.ids.size(); ++t)
      ensure(e.targets[t] == -1 || e.targets[t] == e.ids[t + 1], "targets are the next tokens");
    tokens += std::int64_t(e.ids.size());
    counted += e.counted();
  }
  ensure(tokens == data.tokens && counted == data.counted, "the sums are right");
}

// Cut in pieces, the lines are the same.
void check_pieces(std::string_view bytes) {
  std::size_t lines = 0;
  std::size_t text = 0;
  const auto count = [&](const train::jsonl_lines::line& line) {
    ++lines;
    text = text * 31 + line.text.size() + std::size_t(line.number);
    return true;
  };
  train::jsonl_lines whole(count);
  whole.feed(bytes);
  whole.finish();
  const std::size_t lines_whole = std::exchange(lines, 0);
  const std::size_t text_whole = std::exchange(text, 0);
  train::jsonl_lines cut(count);
  for (std::size_t at = 0; at < bytes.size(); at += 7) cut.feed(bytes.substr(at, 7));
  cut.finish();
  ensure(lines == lines_whole && text == text_whole, "pieces change no line");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  check_pieces(bytes);
  const train::check_report report = train::check_bytes(bytes);
  ensure(report.faults.size() <= train::faults_kept, "ten faults at most");
  ensure((report.faulty == 0) == report.faults.empty(), "a faulty line has a fault");
  ensure(std::is_sorted(report.faults.begin(), report.faults.end(),
                        [](const auto& a, const auto& b) { return a.line < b.line; }),
         "faults are in order");
  const auto how = train::too_long(data[0] / 8U % 3U);
  const std::int64_t most_tokens = data[0] < 128 ? 1 << 20 : 64;
  const auto read = train::read_bytes(bytes, reader_of(data[0]), most_tokens, how);
  if (read) {
    ensure(report.faulty == 0, "a faulty file is not read");
    check_examples(*read, most_tokens);
  } else {
    ensure(!read.error().detail.empty(), "a refusal says why");
  }
  return 0;
}
