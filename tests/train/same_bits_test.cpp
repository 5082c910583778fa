// What a job's weights come to does not depend on who computes it or how: to the bit.
#include "tests/support/golden.hpp"
#include "tests/support/gpu.hpp"
#include "tests/support/random_model.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/training.hpp"

#include <cstring>

using namespace tandem;
using namespace tandem::test;
using train::training_method;

namespace {

struct ending {
  std::vector<float> parameters;
  std::vector<double> losses;
  std::vector<double> norms;
};

train::job_settings settings_of(training_method method, const std::vector<std::string>& targets) {
  train::job_settings settings;
  settings.method = method;
  settings.rank = 3;
  settings.targets = targets;
  settings.slots = 4;
  settings.micro_batch = 2;
  settings.sequence_length = 16;
  settings.learning_rate = 0.01;
  settings.weight_decay = 0.1;
  settings.clip_norm = 1.0;
  settings.seed = 7;
  settings.serve_format = "f32";
  return settings;
}

// Three steps of three rounds: a full one, one whose last slots are empty, one with a single slot
// and nothing counted in another.
ending train_some(const std::filesystem::path& model, const training_job::setup& how,
                  int vocabulary, const std::function<void(training_job&)>& prepare = {}) {
  training_job job(model, how);
  if (prepare) prepare(job);
  std::mt19937 random(11);
  ending end;
  for (int step = 0; step < 3; ++step) {
    auto rounds = random_rounds(random, 3, 4, vocabulary);
    rounds[1].slots[2] = {};
    rounds[1].slots[3] = {};
    rounds[2].slots[1] = {};
    rounds[2].slots[2] = {};
    auto& uncounted = rounds[2].slots[3].targets;
    std::fill(uncounted.begin(), uncounted.end(), -1);
    const auto out = job.step(rounds);
    end.losses.push_back(out.loss);
    end.norms.push_back(out.norm);
  }
  end.parameters = job.parameters();
  for (int rank = 1; rank < how.devices; ++rank) {
    const auto others = job.parameters(static_cast<std::size_t>(rank));
    CHECK(std::memcmp(others.data(), end.parameters.data(), others.size() * sizeof(float)) == 0);
  }
  return end;
}

ending train_some(const std::filesystem::path& model, train::job_settings settings, int devices,
                  int vocabulary, const std::function<void(training_job&)>& prepare = {}) {
  return train_some(model, {.settings = std::move(settings), .devices = devices}, vocabulary,
                    prepare);
}

void check_same(const ending& a, const ending& b) {
  REQUIRE(a.parameters.size() == b.parameters.size());
  CHECK(std::memcmp(a.parameters.data(), b.parameters.data(),
                    a.parameters.size() * sizeof(float)) == 0);
  CHECK(a.losses == b.losses);
  CHECK(a.norms == b.norms);
}

const std::vector<std::string> all_targets{"q_proj",  "k_proj",    "v_proj",   "o_proj",
                                           "up_proj", "gate_proj", "down_proj"};

}  // namespace

TEST_CASE("one, two and four devices train the same weights to the bit") {
  for (const std::string family :
       {"llama_tied", "llama31_rope_untied", "qwen2_bias", "gemma3_local_global", "qwen3_moe"}) {
    for (const auto method : {training_method::full, training_method::lora}) {
      INFO(family << (method == training_method::full ? ", full" : ", LoRA"));
      const auto folder = golden("tiny/" + family);
      const auto settings = settings_of(method, all_targets);
      const auto one = train_some(folder, settings, 1, 320);
      CHECK(one.losses.front() > 4.0);
      check_same(one, train_some(folder, settings, 2, 320));
      check_same(one, train_some(folder, settings, 4, 320));
    }
  }
}

TEST_CASE("whoever does a home's work, and however often it is dropped, the bits are the same") {
  for (const std::string family : {"llama_tied", "llama31_rope_untied", "qwen3_moe"}) {
    for (const auto method : {training_method::full, training_method::lora}) {
      INFO(family << (method == training_method::full ? ", full" : ", LoRA"));
      const auto folder = golden("tiny/" + family);
      const auto settings = settings_of(method, all_targets);
      const auto one = train_some(folder, settings, 1, 320);
      for (const int devices : {2, 4}) {
        INFO(devices << " devices");
        const auto last = static_cast<std::size_t>(devices) - 1;
        check_same(one, train_some(folder, settings, devices, 320, [last](training_job& job) {
                     job.executor = [last](std::size_t) { return last; };
                   }));
        std::mt19937 random(17);
        check_same(one, train_some(folder, settings, devices, 320, [&](training_job& job) {
                     job.executor = [&](std::size_t) { return random() % (last + 1); };
                     job.drops = [&] { return random() % 40 == 0; };
                   }));
      }
    }
  }
}

TEST_CASE("on a GPU one device and two train the same weights to the bit, recomputing too",
          "[gpu]") {
  if (no_gpu()) return;
  for (const std::string family : {"llama_tied", "llama31_rope_untied", "qwen2_bias", "phi3_fused",
                                   "gemma3_local_global", "qwen3_moe"}) {
    for (const auto& [method, precision] :
         {std::pair{training_method::full, train::product_precision::f32},
          std::pair{training_method::full, train::product_precision::bf16},
          std::pair{training_method::lora, train::product_precision::bf16}}) {
      INFO(family << (method == training_method::full ? ", full" : ", LoRA"));
      const auto folder = golden("tiny/" + family);
      auto settings = settings_of(method, {"q_proj", "qkv_proj", "o_proj", "down_proj"});
      settings.precision = precision;
      const auto one = train_some(folder, {.settings = settings, .gpu = 0}, 320);
      CHECK(one.losses.front() > 4.0);
      check_same(
          one,
          train_some(folder, {.settings = settings, .devices = 2, .apart = true, .gpu = 0}, 320));
      settings.recompute = true;
      check_same(one, train_some(folder, {.settings = settings, .gpu = 0}, 320));
    }
  }
}

TEST_CASE("a serving copy has the same bytes whoever writes it") {
  const auto folder = golden("tiny/llama_tied");
  const auto settings = settings_of(training_method::full, {});
  const auto published = [&](std::size_t executor, std::size_t home) {
    training_job job(folder, {.settings = settings, .devices = 2});
    std::mt19937 random(11);
    job.step(random_rounds(random, 2, 4, 320));
    job.executor = [executor](std::size_t) { return executor; };
    const auto came = job.publish(1, home);
    REQUIRE(came.weights);
    CHECK(came.weights->book == job.book(home));
    const auto bytes = came.weights->memory.bytes();
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  const auto own = published(0, 0);
  CHECK(own == published(1, 0));
  CHECK(own == published(0, 1));
}

TEST_CASE("models of odd sizes train the same on one and on two devices") {
  const std::vector<std::string> configs{
      R"({"model_type":"qwen2","architectures":["Qwen2ForCausalLM"],"hidden_size":36,
          "intermediate_size":52,"num_hidden_layers":2,"num_attention_heads":6,
          "num_key_value_heads":2,"head_dim":8,"vocab_size":131,"max_position_embeddings":64,
          "rms_norm_eps":1e-6,"rope_theta":10000.0,"tie_word_embeddings":false,
          "eos_token_id":2,"hidden_act":"silu"})",
      R"({"model_type":"qwen3_moe","architectures":["Qwen3MoeForCausalLM"],"hidden_size":24,
          "intermediate_size":20,"moe_intermediate_size":20,"num_experts":3,
          "num_experts_per_tok":2,"norm_topk_prob":false,"decoder_sparse_step":2,
          "mlp_only_layers":[],"num_hidden_layers":2,"num_attention_heads":3,
          "num_key_value_heads":1,"head_dim":16,"vocab_size":67,"max_position_embeddings":64,
          "rms_norm_eps":1e-6,"rope_theta":10000.0,"tie_word_embeddings":true,
          "eos_token_id":2,"hidden_act":"silu"})"};
  const temporary_folder folder;
  int at = 0;
  for (const auto& config : configs) {
    const auto model = folder.path() / std::to_string(at++);
    write_random_model(model, config, 5);
    for (const auto method : {training_method::full, training_method::lora}) {
      INFO(config);
      const auto settings = settings_of(method, all_targets);
      const auto one = train_some(model, settings, 1, 67);
      check_same(one, train_some(model, settings, 2, 67));
      auto again = settings;
      again.recompute = true;
      check_same(one, train_some(model, again, 1, 67));
    }
  }
}

TEST_CASE("computing a layer's inside again changes no bit") {
  for (const std::string family : {"llama_tied", "qwen3_qknorm", "gemma3_local_global",
                                   "phi3_fused", "qwen3_moe", "mistral_window"}) {
    for (const auto method : {training_method::full, training_method::lora}) {
      INFO(family);
      auto settings = settings_of(method, {"q_proj", "qkv_proj", "o_proj", "down_proj"});
      const auto kept = train_some(golden("tiny/" + family), settings, 1, 320);
      settings.recompute = true;
      check_same(kept, train_some(golden("tiny/" + family), settings, 1, 320));
    }
  }
}

TEST_CASE("examples packed into one row have the losses and gradients they have alone") {
  std::mt19937 random(3);
  auto settings = settings_of(training_method::full, {});
  settings.sequence_length = 40;
  std::vector<train::slot_rows> alone;
  for (int e = 0; e < 4; ++e) alone.push_back(random_rows(random, 1, 12, 320));
  train::slot_rows packed;
  for (const auto& example : alone) append(packed, example);
  for (const std::string family : {"llama_tied", "mistral_window", "gemma3_local_global"}) {
    INFO(family);
    training_job job(golden("tiny/" + family), {.settings = settings});
    double apart = 0.0;
    for (const auto& loss : job.accumulate({{{alone}}})) apart += loss.loss_sum;
    const auto gradient = job.memory().shard_gradient().floats;
    const std::vector<float> of_apart(gradient.begin(), gradient.end());
    const auto together = job.accumulate({{{packed, {}, {}, {}}}});
    // A row's own numbers are the same to the bit; sums over rows are taken in another order.
    CHECK(together.front().loss_sum == Approx(apart).epsilon(1e-12));
    double largest = 0.0;
    double off = 0.0;
    for (std::size_t i = 0; i < of_apart.size(); ++i) {
      largest = std::max(largest, std::fabs(static_cast<double>(of_apart[i])));
      off = std::max(off, std::fabs(static_cast<double>(of_apart[i] - gradient[i])));
    }
    CHECK(off < 1e-5 * largest);
  }
}

TEST_CASE("evaluation finds the losses that training finds, and changes nothing") {
  for (const auto method : {training_method::full, training_method::lora}) {
    training_job job(golden("tiny/llama_tied"), {.settings = settings_of(method, {"q_proj"})});
    std::mt19937 random(3);
    const auto rounds = random_rounds(random, 1, 4, 320);
    const auto before = job.parameters();
    const auto evaluated = job.evaluate(rounds.front().slots);
    CHECK(job.parameters() == before);
    CHECK(evaluated == job.accumulate(rounds));
    CHECK(evaluated.front().counted > 0);
  }
}

TEST_CASE("LoRA begins where the base is, and its zeros stay zeros") {
  training_job job(golden("tiny/llama_tied"),
                   {.settings = settings_of(training_method::lora, all_targets)});
  training_job full(golden("tiny/llama_tied"),
                    {.settings = settings_of(training_method::full, {})});
  std::mt19937 random(3);
  const auto rounds = random_rounds(random, 1, 4, 320);
  CHECK(job.evaluate(rounds.front().slots) == full.evaluate(rounds.front().slots));
  const auto before = job.parameters();
  for (int s = 0; s < 3; ++s) job.step(rounds);
  const auto after = job.parameters();
  const auto& layout = job.memory().adapter->layout;
  std::int64_t moved = 0;
  for (std::size_t i = 0; i < after.size(); ++i) moved += before[i] != after[i] ? 1 : 0;
  std::int64_t numbers = 0;
  for (const auto& module : layout.modules) numbers += module.rank * (module.columns + module.rows);
  CHECK(moved == numbers);
  CHECK(job.trainer().facts().trainable_parameters == numbers);
}
