// What training hands to serving: at once, whole, and never touched again while somebody reads it.
#include "tests/support/golden.hpp"
#include "tests/support/model_runner.hpp"
#include "tests/support/random_model.hpp"
#include "tests/support/training.hpp"

#include <cstring>

using namespace tandem;
using namespace tandem::test;
using train::training_method;

namespace {

train::job_settings small(training_method method, const std::string& serve_format = "f32") {
  train::job_settings settings;
  settings.method = method;
  settings.rank = 4;
  settings.alpha = 8;
  settings.targets = {"q_proj", "v_proj", "up_proj", "down_proj"};
  settings.slots = 2;
  settings.sequence_length = 64;
  settings.learning_rate = 0.01;
  settings.serve_format = serve_format;
  return settings;
}

std::vector<train::round_rows> some_rounds() {
  std::mt19937 random(21);
  return random_rounds(random, 1, 2, 320);
}

const std::vector<std::int32_t> prompt{5, 17, 300, 4, 99, 12, 250, 7, 7, 31};

// What the trainer itself makes of every token after the prompt.
double largest_difference_from_training(training_job& job, const std::vector<float>& logits) {
  auto rows = example_rows(prompt, std::vector<bool>(prompt.size()));
  double largest = 0.0;
  for (std::int32_t id = 0; id < 320; ++id) {
    rows.targets.back() = id;
    const double found = -job.evaluate({rows, {}}).front().loss_sum;
    largest = std::max(largest, std::fabs(found - log_probability(logits, id)));
  }
  return largest;
}

}  // namespace

TEST_CASE("a published adapter answers as the trainer does, in every family") {
  for (const std::string family : {"llama_tied", "qwen2_bias", "qwen3_qknorm", "phi3_fused",
                                   "gemma3_local_global", "qwen3_moe", "mistral_window"}) {
    INFO(family);
    auto settings = small(training_method::lora);
    settings.targets.insert(settings.targets.end(), {"qkv_proj", "gate_up_proj", "o_proj"});
    training_job job(golden("tiny/" + family), {.settings = settings});
    for (int s = 0; s < 5; ++s) job.step(some_rounds());
    const auto came = job.publish(7);
    REQUIRE(came.adapter != nullptr);
    CHECK(came.weights == nullptr);
    CHECK(came.adapter->version == 7);
    model_runner runner(golden("tiny/" + family));
    const auto tuned = runner.read(prompt, 0, came.adapter.get());
    CHECK(largest_difference_from_training(job, tuned.back()) < 2e-5);
    const auto plain = runner.read(prompt, 1);
    CHECK(largest_difference(tuned.back(), plain.back()) > 0.1);
  }
}

TEST_CASE("published weights answer as the trainer does, in every family") {
  for (const std::string family : {"llama_tied", "llama31_rope_untied", "qwen2_bias", "phi3_fused",
                                   "gemma3_local_global", "qwen3_moe"}) {
    INFO(family);
    training_job job(golden("tiny/" + family), {.settings = small(training_method::full)});
    for (int s = 0; s < 3; ++s) job.step(some_rounds());
    const auto came = job.publish(3);
    REQUIRE(came.weights != nullptr);
    CHECK(came.weights->version == 3);
    CHECK(came.weights->precision == "f32");
    model_runner runner(golden("tiny/" + family));
    const auto tuned = runner.step({{0, prompt}}, came.weights.get());
    CHECK(largest_difference_from_training(job, tuned.back()) < 2e-5);
  }
}

TEST_CASE(
    "before the first step a serving copy is what loading in that format gives, to the byte") {
  for (const std::string family :
       {"llama_tied", "gemma3_local_global", "qwen3_moe", "qwen2_bias"}) {
    for (const std::string format : {"f32", "bf16", "fp8", "q8_0", "q4_1"}) {
      INFO(family << " in " << format);
      training_job job(golden("tiny/" + family),
                       {.settings = small(training_method::full, format)});
      const auto copy = job.publish(2).weights;
      memory::ledger book(std::uint64_t{1} << 30);
      const auto source = model::model_source::open(golden("tiny/" + family));
      REQUIRE(source);
      const auto loaded = (*source)->load(job.device(), book, *model::load_format_from(format));
      REQUIRE(loaded);
      CHECK(copy->precision == (*loaded)->precision);
      CHECK(copy->format == (*loaded)->format);
      const auto found = copy->memory.bytes();
      const auto wanted = (*loaded)->memory.bytes();
      REQUIRE(found.size() == wanted.size());
      CHECK(std::memcmp(found.data(), wanted.data(), found.size()) == 0);
    }
  }
}

TEST_CASE("a copy that somebody reads is never written: a third publication waits for a reader") {
  training_job job(golden("tiny/llama_tied"), {.settings = small(training_method::full)});
  auto first = job.publish(1).weights;
  job.step(some_rounds());
  auto second = job.publish(2).weights;
  CHECK(first != second);
  const auto bytes = second->memory.bytes();
  const std::vector<std::byte> before(bytes.begin(), bytes.end());

  auto order = job.order_of(train::order_kind::publish);
  order.version = 3;
  const auto refused = job.trainer().begin(order);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::conflict);
  CHECK(refused.error().detail.find("versions 1 and 2") != std::string::npos);

  const auto* const place = first.get();
  first.reset();
  job.step(some_rounds());
  const auto third = job.publish(3).weights;
  CHECK(third.get() == place);
  CHECK(third->version == 3);
  CHECK(std::memcmp(before.data(), bytes.data(), before.size()) == 0);
}

TEST_CASE("what was published outlives the trainer, and its memory is counted until the end") {
  std::shared_ptr<memory::ledger> book;
  std::shared_ptr<const model::adapter> adapter;
  std::shared_ptr<const model::weights> weights;
  {
    training_job lora(golden("tiny/llama_tied"), {.settings = small(training_method::lora)});
    lora.step(some_rounds());
    adapter = lora.publish(1).adapter;
    book = lora.book();
  }
  CHECK(book->used() == adapter->layout.bytes);
  {
    training_job full(golden("tiny/llama_tied"), {.settings = small(training_method::full)});
    weights = full.publish(1).weights;
  }
  model_runner runner(golden("tiny/llama_tied"));
  runner.read(prompt, 0, adapter.get());
  runner.step({{1, prompt}}, weights.get());
  adapter.reset();
  CHECK(book->used() == 0);
}

TEST_CASE("every publication of an adapter is its own: later steps do not reach it") {
  training_job job(golden("tiny/llama_tied"), {.settings = small(training_method::lora)});
  job.step(some_rounds());
  const auto first = job.publish(1).adapter;
  const auto bytes = first->memory.bytes();
  const std::vector<std::byte> before(bytes.begin(), bytes.end());
  job.step(some_rounds());
  const auto second = job.publish(2).adapter;
  CHECK(std::memcmp(before.data(), bytes.data(), before.size()) == 0);
  CHECK(std::memcmp(before.data(), second->memory.bytes().data(), before.size()) != 0);
}

TEST_CASE("serving steps between any two pieces of training change neither") {
  const auto folder = golden("tiny/qwen3_moe");
  auto settings = small(training_method::full);
  settings.sequence_length = 64;
  training_job alone(folder, {.settings = settings});
  const auto rounds = some_rounds();
  for (int s = 0; s < 2; ++s) alone.step(rounds);

  training_job shared(folder, {.settings = settings});
  auto& device = shared.device();
  const auto source = model::model_source::open(folder);
  const auto loaded = (*source)->load(device, *shared.book(), model::load_format::f32);
  REQUIRE(loaded);
  auto pass = model::forward_pass::create(device, *shared.book(), *loaded,
                                          {.rows = 16,
                                           .logit_rows = 1,
                                           .context_positions = 32,
                                           .kv_blocks = 2,
                                           .kv = kernels::kv_format::f32});
  REQUIRE(pass);
  const std::vector<std::int32_t> positions{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  const std::vector<std::int32_t> blocks{0, 1};
  const std::vector<std::int32_t> last{9};
  const std::vector<kernels::attention_span> spans{{0, 10, 0, blocks.data()}};
  model::forward_input input;
  input.ids_T = prompt;
  input.positions_T = positions;
  input.spans = spans;
  input.logit_rows = last;
  std::vector<float> logits;
  bool serving = false;
  const auto serve_a_piece = [&] {
    if (!serving) (*pass)->begin(input);
    serving = (*pass)->advance();
    if (serving) return;
    const auto row = (*pass)->logits();
    const std::vector<float> now(row.data, row.data + row.columns);
    if (logits.empty()) logits = now;
    CHECK(logits == now);
  };
  shared.between_pieces = serve_a_piece;
  for (int s = 0; s < 2; ++s) shared.step(rounds);
  CHECK_FALSE(logits.empty());
  CHECK(shared.parameters() == alone.parameters());
  model_runner runner(folder);
  CHECK(runner.read(prompt).back() == logits);
}
