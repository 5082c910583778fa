// A job on devices that hold a model together is the job on one device: losses, norms and every
// byte of its checkpoints.
#include "tests/support/loaded_device.hpp"
#include "tests/support/random_model.hpp"
#include "tests/support/tiny_models.hpp"

#include <fstream>
#include <iterator>
#include <random>

using namespace tandem;
using namespace tandem::serve;
using namespace tandem::test;
using train::order_kind;
using train::training_method;

namespace {

const std::vector<std::string> every_module{"q_proj",    "k_proj",   "v_proj",
                                            "o_proj",    "up_proj",  "gate_proj",
                                            "down_proj", "qkv_proj", "gate_up_proj"};

train::job_settings settings_of(training_method method) {
  train::job_settings settings;
  settings.method = method;
  settings.rank = 3;
  settings.targets = every_module;
  settings.slots = 4;
  settings.micro_batch = 2;
  settings.sequence_length = 16;
  settings.learning_rate = 0.01;
  settings.weight_decay = 0.1;
  settings.seed = 7;
  settings.serve_format = "f32";
  return settings;
}

device_spec one_device() {
  return {.name = "cpu:0", .cores = {0}, .memory_bytes = std::uint64_t{1} << 30};
}

std::string bytes_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  REQUIRE(in.good());
  return {std::istreambuf_iterator<char>(in), {}};
}

train::order order_of(order_kind kind, std::vector<train::slot_rows> slots = {}) {
  train::order what;
  what.kind = kind;
  what.job = "job";
  what.slots = std::move(slots);
  what.scale = 1.0 / 64;
  return what;
}

train::open_order opening_of(const std::string& family, const train::job_settings& settings,
                             const std::string& checkpoint = "") {
  train::open_order order;
  order.job = "job";
  order.model_path = order_for(family).path;
  order.settings = settings;
  order.checkpoint = checkpoint;
  return order;
}

// What a step shows of itself.
struct shown {
  std::vector<train::slot_loss> losses;
  std::vector<double> squares;
  bool operator==(const shown&) const = default;
};

class job_on {
 public:
  job_on(const device_spec& spec, const std::string& family, train::job_settings settings,
         const std::string& checkpoint = "", const std::string& format = "native")
      : device_(make_device(spec)), settings_(std::move(settings)) {
    device_->attach_calling_thread();
    auto order = order_for(family);
    order.format = format;
    if (auto loaded = device_->load(order); !loaded) FAIL(loaded.error().detail);
    auto opened = device_->open_training(opening_of(family, settings_, checkpoint));
    if (!opened) FAIL(opened.error().detail);
    facts = *std::move(opened);
    step_ = facts.step;
  }

  // Called after every piece.
  std::function<void(order_kind)> between_pieces;

  train::outcome carry_out(train::order what) {
    what.step = step_ + 1;
    if (auto begun = device_->begin_training(what); !begun) FAIL(begun.error().detail);
    for (bool more = true; more;) {
      more = device_->advance_training();
      if (more && between_pieces) between_pieces(what.kind);
    }
    auto came = device_->finish_training();
    if (!came) FAIL(came.error().detail);
    return *std::move(came);
  }

  shown step(const std::vector<train::round_rows>& rounds) {
    shown what;
    for (std::size_t round = 0; round < rounds.size(); ++round) {
      auto order = order_of(order_kind::accumulate, rounds[round].slots);
      order.round = static_cast<int>(round);
      const auto came = carry_out(std::move(order));
      what.losses.insert(what.losses.end(), came.losses.begin(), came.losses.end());
    }
    what.squares = carry_out(order_of(order_kind::norm)).squares;
    auto update = order_of(order_kind::update);
    update.learning_rate = settings_.learning_rate;
    update.gradient_scale = 0.5;
    carry_out(std::move(update));
    ++step_;
    return what;
  }

  std::filesystem::path save(const temporary_folder& folder) const {
    train::checkpoint_facts what;
    what.job = "job";
    what.step = step_;
    what.settings = settings_;
    what.layout = facts.layout.parameters;
    auto written = train::write_checkpoint(folder.path(), what, {facts.shared}, 3);
    if (!written) FAIL(written.error().detail);
    return *written;
  }

  serve::device& device() { return *device_; }
  train::opened facts;

 private:
  std::unique_ptr<serve::device> device_;
  train::job_settings settings_;
  std::int64_t step_ = 0;
};

// Of step `number`: a full round, and one with empty slots and one that counts nothing.
std::vector<train::round_rows> rounds_of(int number) {
  std::mt19937 random(static_cast<unsigned>(11 + number));
  auto rounds = random_rounds(random, 2, 4, 320);
  rounds[1].slots[1] = {};
  rounds[1].slots[2] = {};
  auto& uncounted = rounds[1].slots[3].targets;
  std::fill(uncounted.begin(), uncounted.end(), -1);
  return rounds;
}

std::vector<shown> steps_of(job_on& job, int first, int end) {
  std::vector<shown> all;
  for (int number = first; number < end; ++number) all.push_back(job.step(rounds_of(number)));
  return all;
}

void check_same_files(const std::filesystem::path& one, const std::filesystem::path& other) {
  for (const auto* const file : {"parameters.f32", "first_moments.f32", "second_moments.f32"}) {
    INFO(file);
    CHECK(bytes_of(one / file) == bytes_of(other / file));
  }
}

void check_same(const std::string& family, const train::job_settings& settings,
                const std::vector<int>& ranks, const std::string& format = "native") {
  job_on one(one_device(), family, settings, "", format);
  const temporary_folder alone;
  const auto started = bytes_of(one.save(alone) / "parameters.f32");
  const auto steps = steps_of(one, 0, 2);
  const auto saved = one.save(alone);
  CHECK(bytes_of(saved / "parameters.f32") != started);
  for (const int count : ranks) {
    INFO(family << " on " << count
                << (settings.method == training_method::full ? ", full" : ", LoRA"));
    job_on group(group_of(count), family, settings, "", format);
    CHECK(group.facts.trainable_parameters == one.facts.trainable_parameters);
    CHECK(group.facts.layout.parameters == one.facts.layout.parameters);
    CHECK(steps_of(group, 0, 2) == steps);
    const temporary_folder together;
    check_same_files(saved, group.save(together));
  }
}

}  // namespace

TEST_CASE("two devices together train all weights as one does, to the bit") {
  for (const std::string family : families)
    if (family != "qwen3_moe") check_same(family, settings_of(training_method::full), {2});
}

TEST_CASE("two devices together train an adapter as one does, to the bit") {
  for (const std::string family : families)
    if (family != "qwen3_moe") check_same(family, settings_of(training_method::lora), {2});
}

// Two of them share a key head, and the smallest parts are empty.
TEST_CASE("four devices together train as one does, to the bit") {
  for (const std::string family : {"llama31_rope_untied", "qwen2_bias", "qwen3_qknorm"})
    check_same(family, settings_of(training_method::full), {4});
  for (const std::string family : {"gemma3_local_global", "phi3_fused"})
    check_same(family, settings_of(training_method::lora), {4});
}

TEST_CASE("a group trains adapters over rounded weights to the bit") {
  for (const std::string format : {"bf16", "q8_0", "q4_1"})
    check_same("gemma3_local_global", settings_of(training_method::lora), {2}, format);
}

TEST_CASE("a group that computes layers again, or rounds products, has the bits of one device") {
  for (const auto method : {training_method::full, training_method::lora}) {
    auto settings = settings_of(method);
    settings.recompute = true;
    check_same("gemma3_local_global", settings, {2});
    settings.precision = train::product_precision::bf16;
    check_same("qwen2_bias", settings, {2});
  }
}

TEST_CASE("a job goes on from its checkpoint on a group, on one device, and back") {
  for (const auto method : {training_method::full, training_method::lora}) {
    const auto settings = settings_of(method);
    const temporary_folder folder;
    job_on undisturbed(one_device(), "llama_tied", settings);
    const auto all = steps_of(undisturbed, 0, 4);
    std::vector<shown> steps;
    std::filesystem::path saved;
    const std::vector<device_spec> homes{group_of(2), one_device(), group_of(4), group_of(2)};
    for (int number = 0; number < 4; ++number) {
      job_on job(homes[static_cast<std::size_t>(number)], "llama_tied", settings, saved.string());
      CHECK(job.facts.step == number);
      steps.push_back(job.step(rounds_of(number)));
      saved = job.save(folder);
    }
    CHECK(steps == all);
    const temporary_folder alone;
    check_same_files(saved, undisturbed.save(alone));
  }
}

TEST_CASE("a group serves between the pieces of a job, and drops orders, without a trace") {
  const auto settings = settings_of(training_method::full);
  job_on one(one_device(), "llama_tied", settings);
  job_on group(group_of(2), "llama_tied", settings);
  const auto answer_of = [](serve::device& on) {
    step_plan plan;
    slot_start start;
    start.prompt = {5, 9, 2};
    plan.starts = {start};
    plan.chunks = {{0, 0, start.prompt, {0}, true, true, {}}};
    REQUIRE(on.begin(plan));
    while (on.advance()) {
    }
    auto answer = on.finish();
    answer.device_ns = 0;
    plan = {};
    plan.releases = {0};
    REQUIRE(on.begin(plan));
    while (on.advance()) {
    }
    (void)on.finish();
    return answer;
  };
  const auto before = answer_of(one.device());
  int served = 0;
  group.between_pieces = [&](order_kind) {
    if (++served % 5 == 0) CHECK(answer_of(group.device()) == before);
  };
  const auto rounds = rounds_of(0);
  auto dropped = order_of(order_kind::accumulate, rounds[0].slots);
  dropped.step = 1;
  REQUIRE(group.device().begin_training(dropped));
  for (int piece = 0; piece < 9; ++piece) CHECK(group.device().advance_training());
  group.device().drop_training();
  CHECK(group.step(rounds) == one.step(rounds));
  CHECK(served > 50);
  // What is validated moves nothing.
  const auto evaluated = [&](job_on& job) {
    return job.carry_out(order_of(order_kind::evaluate, rounds[0].slots)).losses;
  };
  CHECK(evaluated(group) == evaluated(one));
  const temporary_folder here;
  const temporary_folder there;
  check_same_files(one.save(here), group.save(there));
}

TEST_CASE("a version that a group trained is served by it as by one device") {
  for (const auto method : {training_method::full, training_method::lora}) {
    loaded_device one;
    job_on group(group_of(2), "llama_tied", settings_of(method));
    (void)steps_of(group, 0, 2);
    const temporary_folder folder;
    const auto saved = group.save(folder).string();
    loaded_device serving(group_of(2));
    for (auto* const on : {&one, &serving}) {
      auto read = on->device->load_variant(saved, 2);
      if (!read) FAIL(read.error().detail);
      REQUIRE(on->device->add_variant(1, *read));
    }
    CHECK(serving.text(1, 0) == one.text(1, 0));
    CHECK(serving.text(1, 0) != one.text(0, 1));
    CHECK(group.device().load_variant(saved, 2));  // where it was trained, too
  }
}

TEST_CASE("what full training keeps is divided among the ranks, and given back") {
  loaded_device untrained(group_of(2));
  const auto settings = settings_of(training_method::full);
  job_on one(one_device(), "llama_tied", settings);
  job_on group(group_of(2), "llama_tied", settings);
  for (const auto bytes : {&train::memory_plan::gradients, &train::memory_plan::optimizer}) {
    // Norms, which each rank has, are little.
    CHECK(group.facts.memory.*bytes >= one.facts.memory.*bytes);
    CHECK(group.facts.memory.*bytes < one.facts.memory.*bytes * 102 / 100);
  }
  CHECK(group.facts.memory.serving_copies == 0);
  group.device().close_training("job");
  group.facts.shared.reset();  // whoever writes a checkpoint holds what it reads
  CHECK(group.device().facts().memory_by_owner == untrained.device->facts().memory_by_owner);
}

TEST_CASE("a job that one rank has no room for is taken by none") {
  const loaded_device roomy(group_of(2));
  const auto before = roomy.device->facts().memory_by_owner;
  std::uint64_t used = 0;
  for (const auto bytes : before) used += bytes;
  auto spec = group_of(2);
  spec.ranks[1].memory_bytes = used / 2 + 100'000;
  loaded_device tight(spec);
  for (const auto method : {training_method::full, training_method::lora}) {
    const auto refused = tight.device->open_training(opening_of("llama_tied", settings_of(method)));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::no_memory);
    CHECK(tight.device->facts().memory_by_owner == before);
  }
}

TEST_CASE("a group trains a job alone, and publishes from checkpoints") {
  loaded_device group(group_of(2));
  auto order = opening_of("llama_tied", settings_of(training_method::lora));
  order.device_count = 2;
  const auto opened = group.device->open_training(order);
  REQUIRE_FALSE(opened);
  CHECK(opened.error().code == errc::unsupported);
  CHECK_THAT(opened.error().detail, Catch::Contains("cpu:0+cpu:1: ") && Catch::Contains("alone"));
  order.device_count = 1;
  REQUIRE(group.device->open_training(order));
  const auto refused = group.device->begin_training(order_of(order_kind::publish));
  REQUIRE_FALSE(refused);
  CHECK_THAT(refused.error().detail, Catch::Contains("from checkpoints"));
}
