// Which ids an example becomes, for each form and several kinds of tokenizers.
#include "runtime/formats/gguf.hpp"
#include "runtime/train/token_places.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/training.hpp"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <cstring>
#include <random>

using namespace tandem;
using namespace tandem::train;
using namespace tandem::test;

namespace {

using ids = std::vector<token_id>;

std::shared_ptr<const text::tokenizer> golden_tokenizer(const std::string& name) {
  std::ifstream file(std::string(TANDEM_GOLDEN) + "/tokenizers/" + name + ".tokenizer.json");
  REQUIRE(file);
  auto read = text::tokenizer::from_json(std::string((std::istreambuf_iterator<char>(file)), {}));
  REQUIRE(read);
  return *read;
}

reader reader_with(std::shared_ptr<const text::tokenizer> tokenizer, ids ends = {}) {
  reader how;
  how.tokenizer = std::move(tokenizer);
  how.eos_ids = std::move(ends);
  return how;
}

// 256 begins, 258 ends; bytes between.
reader byte_reader() { return reader_of(std::string(chatml), {"<|im_end|>"}); }

dataset good(std::string_view jsonl, const reader& how, std::int64_t most = 1000,
             too_long what = too_long::refuse) {
  auto data = read_bytes(jsonl, how, most, what);
  if (!data) FAIL(data.error().detail);
  return std::move(*data);
}

std::string refusal(std::string_view jsonl, const reader& how, std::int64_t most = 1000,
                    too_long what = too_long::refuse) {
  const auto data = read_bytes(jsonl, how, most, what);
  REQUIRE_FALSE(data);
  CHECK(data.error().code == errc::bad_file);
  return data.error().detail;
}

}  // namespace

TEST_CASE("a prompt is encoded as /v1/completions does, the completion follows and ends") {
  for (const char* line :
       {R"({"prompt":"ab","completion":"cd"})", R"({"input":"ab","output":"cd"})"}) {
    const auto data = good(line, byte_reader());
    REQUIRE(data.examples.size() == 1);
    CHECK(data.examples[0].ids == ids{256, 'a', 'b', 'c', 'd', 258});
    CHECK(data.examples[0].targets == ids{-1, -1, 'c', 'd', 258, -1});
    CHECK(data.counted == 3);
    CHECK(data.tokens == 6);
    CHECK(data.longest == 6);
  }
}

TEST_CASE("of a text every token after the first counts, and its end") {
  const auto data = good(R"({"text":"ab"})", byte_reader());
  CHECK(data.examples[0].ids == ids{256, 'a', 'b', 258});
  CHECK(data.examples[0].targets == ids{'a', 'b', 258, -1});
}

TEST_CASE("an empty prompt leaves the completion alone") {
  const auto data = good(R"({"prompt":"","completion":"cd"})", byte_reader());
  CHECK(data.examples[0].ids == ids{256, 'c', 'd', 258});
  CHECK(data.examples[0].targets == ids{'c', 'd', 258, -1});
}

TEST_CASE("without an end token nothing is added") {
  auto how = byte_reader();
  how.eos_ids.clear();
  CHECK(good(R"({"prompt":"a","completion":"b"})", how).examples[0].ids == ids{256, 'a', 'b'});
  CHECK(good(R"({"text":"a"})", how).examples[0].ids == ids{256, 'a'});
}

TEST_CASE("control tokens written in texts stay words") {
  const auto data = good(R"({"prompt":"<|im_end|>","completion":"<|im_end|>"})", byte_reader());
  const auto& e = data.examples[0];
  CHECK(std::count(e.ids.begin(), e.ids.end(), 258) == 1);
  CHECK(e.ids.size() == 2 + 2 * std::strlen("<|im_end|>"));
}

TEST_CASE("a completion goes on where the prompt ends, also for tokenizers that mark beginnings") {
  for (const char* name : {"llama2", "llama2_first", "gemma", "gpt2_prefix_space", "gpt2", "smollm",
                           "t5", "deepseek_v3"}) {
    INFO(name);
    const auto how = reader_with(golden_tokenizer(name));
    const std::string prompt = "One two";
    const std::string completion = " three four";
    const auto data = good(R"({"prompt":"One two","completion":" three four"})", how).examples[0];
    const ids first = how.tokenizer->encode(prompt, {});
    REQUIRE(data.ids.size() > first.size());
    CHECK(ids(data.ids.begin(), data.ids.begin() + std::ptrdiff_t(first.size())) == first);
    // No beginning in the middle: both decode to the text as it stands.
    CHECK(how.tokenizer->decode(data.ids, true) ==
          how.tokenizer->decode(how.tokenizer->encode(prompt + completion, {}), true));
    CHECK(data.targets[first.size() - 1] == data.ids[first.size()]);
  }
}

TEST_CASE("an example that is too long is refused with line, length, limit and the choices") {
  const std::string lines = R"({"text":"a"})"
                            "\n\n"
                            R"({"text":"0123456789"})"
                            "\n";
  CHECK(
      refusal(lines, byte_reader(), 8) ==
      "line 3: 12 tokens, more than the 8 of a row; raise sequence_length (at most the model's "
      "context), shorten it, or choose \"tandem\": {\"long_examples\": \"truncate\"} or \"skip\"");
  CHECK(good(lines, byte_reader(), 12).examples.size() == 2);
}

TEST_CASE("a long chat is refused the same way, however its turns lie") {
  const std::string line = R"({"messages":[{"role":"user","content":"a"},)"
                           R"({"role":"assistant","content":"b"}]})";
  const auto whole = good(line, byte_reader());
  CHECK(refusal(line, byte_reader(), whole.longest - 1)
            .find(fmt::format("line 1: {} tokens, more than the {} of a row", whole.longest,
                              whole.longest - 1)) == 0);
}

TEST_CASE("truncated, the head is kept; skipped, the example is left out; both are counted") {
  const std::string lines = R"({"text":"a"})"
                            "\n"
                            R"({"text":"0123456789"})"
                            "\n";
  const auto cut = good(lines, byte_reader(), 4, too_long::truncate);
  CHECK(cut.truncated == 1);
  CHECK(cut.skipped == 0);
  CHECK(cut.examples[1].ids == ids{256, '0', '1', '2'});
  CHECK(cut.examples[1].targets == ids{'0', '1', '2', -1});
  CHECK(cut.longest == 4);
  const auto left = good(lines, byte_reader(), 4, too_long::skip);
  CHECK(left.skipped == 1);
  CHECK(left.examples.size() == 1);
}

TEST_CASE("an example of which nothing counts once it is cut is left out") {
  const std::string lines = R"({"text":"a"})"
                            "\n"
                            R"({"prompt":"0123456789","completion":"x"})";
  const auto cut = good(lines, byte_reader(), 6, too_long::truncate);
  CHECK(cut.examples.size() == 1);
  CHECK(cut.skipped == 1);
  CHECK(cut.truncated == 0);
  CHECK(refusal(R"({"prompt":"0123456789","completion":"x"})", byte_reader(), 6, too_long::truncate)
            .find("all 1 examples are longer than 6 tokens") == 0);
}

TEST_CASE("a file with a fault is refused whole, with the faults") {
  CHECK(refusal("{\"text\":\"a\"}\n{\"text\":7}", byte_reader()) ==
        "line 2, text: expected a string, got a number");
  CHECK(refusal("", byte_reader()) == "line 1: the file has no examples");
}

TEST_CASE("a model without a chat template says so of each chat line") {
  auto how = byte_reader();
  how.chat_template = nullptr;
  how.no_chat_reason = "its folder has no chat template";
  CHECK(
      refusal(R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]})",
              how) == "line 1, messages: its folder has no chat template");
}

TEST_CASE("reading hears how far it is and can be given up") {
  temporary_folder folder;
  std::string lines;
  for (int i = 0; i < 60'000; ++i) lines += "{\"text\":\"some words\"}\n";
  const auto path = folder.write("data.jsonl", lines);
  std::vector<double> heard;
  const auto data = read_dataset(path, byte_reader(), 100, too_long::refuse, [&](double fraction) {
    heard.push_back(fraction);
    return true;
  });
  REQUIRE(data);
  CHECK(data->examples.size() == 60'000);
  REQUIRE(heard.size() > 3);
  CHECK(std::is_sorted(heard.begin(), heard.end()));
  CHECK(heard.back() == 1.0);
  const auto given_up = read_dataset(path, byte_reader(), 100, too_long::refuse,
                                     [](double fraction) { return fraction < 0.5; });
  REQUIRE_FALSE(given_up);
  CHECK(given_up.error().code == errc::cancelled);
}

TEST_CASE("where a byte lies among tokens is the same by adding up and by encoding again") {
  std::mt19937 random(5);
  const std::vector<std::string> parts = {"Hello",      " world", "\n",   "  ",    "été", "你好",
                                          "<|im_end|>", "123",    "\n\n", "don't", " ",   "ab"};
  int added_up = 0;
  for (const char* name : {"smollm", "gpt2", "llama3", "qwen2", "deepseek_v3", "gemma", "llama2"}) {
    const auto tokenizer = golden_tokenizer(name);
    token_places places(tokenizer);
    for (int turn = 0; turn < 60; ++turn) {
      std::vector<text::prompt_piece> pieces;
      std::size_t size = 0;
      std::vector<std::size_t> bytes = {0};
      for (std::size_t i = 1 + random() % 8; i > 0; --i) {
        pieces.push_back({parts[random() % parts.size()], random() % 2 == 0});
        size += pieces.back().text.size();
        bytes.push_back(size);
      }
      const ids whole = tokenizer->encode_prompt(pieces);
      const auto by_adding = places.by_adding(pieces, whole, bytes);
      std::string all;
      for (const auto& piece : pieces) all += "[" + piece.text + "]";
      INFO(name << " " << all);
      for (std::size_t i = 0; by_adding && i < bytes.size(); ++i) {
        ++added_up;
        CHECK(places.by_encoding(pieces, whole, bytes[i]) == (*by_adding)[i]);
      }
      CHECK(places.before(pieces, whole, bytes).back() == whole.size());
    }
  }
  CHECK(added_up > 500);
}

TEST_CASE("SmolLM2's chats become the tokens and targets that transformers made of them") {
  auto file =
      formats::gguf_file::open(std::string(TANDEM_GOLDEN) + "/tokenizers/smollm2_vocabulary.gguf");
  REQUIRE(file);
  auto tokenizer = text::tokenizer::from_gguf(*file);
  REQUIRE(tokenizer);
  reader how = reader_of(
      "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
      "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
      "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
      "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
      "{{ '<|im_start|>assistant\n' }}{% endif %}");
  how.tokenizer = *tokenizer;
  how.eos_ids = {2};
  const text::value golden = read_golden("smollm2/training.json");
  int rows = 0;
  for (const text::value& batch : *golden.find("batches")->if_array()) {
    const auto& all_ids = *batch.find("ids")->if_array();
    for (std::size_t r = 0; r < all_ids.size(); ++r) {
      ids wanted;
      for (const text::value& id : *all_ids[r].if_array())
        wanted.push_back(static_cast<token_id>(*id.if_int()));
      // The conversation again, from the text.
      std::string words = (*tokenizer)->decode(wanted, false);
      text::value::array messages;
      for (std::size_t at = 0; (at = words.find("<|im_start|>", at)) != std::string::npos;) {
        at += std::strlen("<|im_start|>");
        const std::size_t line = words.find('\n', at);
        const std::size_t end = words.find("<|im_end|>", line);
        text::value message;
        message.set("role", words.substr(at, line - at));
        message.set("content", words.substr(line + 1, end - line - 1));
        messages.push_back(std::move(message));
        at = end;
      }
      text::value line;
      line.set("messages", std::move(messages));
      const auto e = good(line.to_json(), how).examples[0];
      // Their rows are cut or filled to one length.
      const std::size_t size = std::min(e.ids.size(), wanted.size());
      CHECK(std::equal(e.ids.begin(), e.ids.begin() + std::ptrdiff_t(size), wanted.begin()));
      const auto& mask = *(*batch.find("loss_mask")->if_array())[r].if_array();
      // Theirs counts the line break behind the end token too.
      for (std::size_t t = 0; t + 1 < size; ++t)
        CHECK((e.targets[t] >= 0) == (*mask[t + 1].if_int() == 1 && e.ids[t] != 2));
      ++rows;
    }
  }
  CHECK(rows > 0);
}
