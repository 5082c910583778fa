// Devices that share no memory make what devices that do make: to the bit, whoever does the work.
#include "runtime/train/checkpoint_writer.hpp"
#include "tests/support/golden.hpp"
#include "tests/support/random_model.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/training.hpp"

#include <cstring>
#include <set>

using namespace tandem;
using namespace tandem::test;
using train::arena_kind;
using train::memory_range;
using train::order_kind;
using train::training_method;

namespace {

train::job_settings settings_of(training_method method) {
  train::job_settings settings;
  settings.method = method;
  settings.rank = 3;
  settings.targets = {"q_proj", "o_proj", "up_proj", "down_proj"};
  settings.slots = 4;
  settings.micro_batch = 2;
  settings.sequence_length = 16;
  settings.learning_rate = 0.01;
  settings.weight_decay = 0.1;
  settings.seed = 7;
  settings.serve_format = "f32";
  return settings;
}

std::vector<float> train_some(const std::filesystem::path& model, training_method method,
                              int devices, bool apart,
                              const std::function<void(training_job&)>& prepare = {}) {
  training_job job(model, {.settings = settings_of(method), .devices = devices, .apart = apart});
  if (prepare) prepare(job);
  std::mt19937 random(11);
  for (int step = 0; step < 3; ++step) {
    auto rounds = random_rounds(random, 2, 4, 320);
    rounds[1].slots[1] = {};
    rounds[1].slots[2] = {};
    // A home in which nothing counts brings no rows of the embedding.
    auto& uncounted = rounds[1].slots[3].targets;
    std::fill(uncounted.begin(), uncounted.end(), -1);
    job.step(rounds);
  }
  auto parameters = job.parameters();
  for (int rank = 1; rank < devices; ++rank)
    CHECK(job.parameters(static_cast<std::size_t>(rank)) == parameters);
  CHECK((job.bytes_moved() > 0) == (apart && devices > 1));
  return parameters;
}

// Four tensors of 10 floats on two ranks; the embedding is the first of them.
train::group_layout small_layout() {
  train::group_layout layout;
  for (std::size_t i = 0; i < 4; ++i)
    layout.parameters.push_back({"tensor." + std::to_string(i), i * 10, 10, true});
  layout.shards = train::shards_of(layout.parameters, 2);
  layout.embedding_rank = 0;
  layout.embedded_rows = 3;
  layout.embedded_columns = 5;
  return layout;
}

}  // namespace

TEST_CASE("a device whose own home the work is of is brought what others have of it, no more") {
  const auto layout = small_layout();
  const std::vector<bool> alone{true, false};
  CHECK(train::needs(layout, order_kind::accumulate, 0, 0, alone).empty());
  CHECK(train::needs(layout, order_kind::norm, 0, 0, alone).empty());
  CHECK(train::needs(layout, order_kind::update, 0, 0, alone).empty());
  CHECK(train::needs(layout, order_kind::reduce, 0, 0, alone) ==
        std::vector<memory_range>{{1, arena_kind::gradients, 0, 20},
                                  {1, arena_kind::embedded_ids, 0, 3},
                                  {1, arena_kind::embedded_rows, 0, 15}});
  CHECK(train::needs(layout, order_kind::reduce, 1, 1, {false, true}) ==
        std::vector<memory_range>{{0, arena_kind::gradients, 20, 20}});
  CHECK(train::needs(layout, order_kind::gather, 0, 0, alone) ==
        std::vector<memory_range>{{1, arena_kind::parameters, 20, 20}});
  for (const auto kind : {order_kind::accumulate, order_kind::reduce, order_kind::update})
    CHECK(train::yields(layout, kind, 0, 0, alone).empty());
}

TEST_CASE("work of another home is brought with how far it has come, and its outcome taken there") {
  const auto layout = small_layout();
  const std::vector<bool> alone{true, false};
  CHECK(train::needs(layout, order_kind::update, 1, 0, alone) ==
        std::vector<memory_range>{{1, arena_kind::summed, 20, 20},
                                  {1, arena_kind::parameters, 20, 20},
                                  {1, arena_kind::first_moments, 20, 20},
                                  {1, arena_kind::second_moments, 20, 20},
                                  {1, arena_kind::progress, 0, 1}});
  CHECK(train::yields(layout, order_kind::update, 1, 0, alone) ==
        std::vector<memory_range>{{1, arena_kind::parameters, 20, 20},
                                  {1, arena_kind::first_moments, 20, 20},
                                  {1, arena_kind::second_moments, 20, 20}});
  CHECK(train::yields(layout, order_kind::accumulate, 1, 0, alone) ==
        std::vector<memory_range>{{1, arena_kind::gradients, 0, 40},
                                  {1, arena_kind::embedded_ids, 0, 3},
                                  {1, arena_kind::embedded_rows, 0, 15}});
  CHECK(train::yields(layout, order_kind::norm, 1, 0, alone).empty());
}

TEST_CASE("devices that share memory are brought nothing") {
  const auto layout = small_layout();
  const std::vector<bool> all{true, true};
  for (const auto kind : {order_kind::accumulate, order_kind::evaluate, order_kind::reduce,
                          order_kind::norm, order_kind::update, order_kind::publish}) {
    CHECK(train::needs(layout, kind, 1, 0, all).empty());
    CHECK(train::yields(layout, kind, 1, 0, all).empty());
  }
  CHECK(train::needs(layout, order_kind::gather, 0, 0, all).empty());
}

TEST_CASE("ranges are cut to a bound, the ids of a round never") {
  const auto pieces =
      train::cut({{1, arena_kind::gradients, 5, 10}, {1, arena_kind::embedded_ids, 0, 9}},
                 4 * sizeof(float) + 3);
  CHECK(pieces == std::vector<memory_range>{{1, arena_kind::gradients, 5, 4},
                                            {1, arena_kind::gradients, 9, 4},
                                            {1, arena_kind::gradients, 13, 2},
                                            {1, arena_kind::embedded_ids, 0, 9}});
}

TEST_CASE("devices that share no memory make the same bits as those that do, and as one") {
  for (const std::string family : {"llama_tied", "llama31_rope_untied", "qwen3_moe"})
    for (const auto method : {training_method::full, training_method::lora}) {
      INFO(family << (method == training_method::full ? ", full" : ", LoRA"));
      const auto folder = golden("tiny/" + family);
      const auto one = train_some(folder, method, 1, false);
      CHECK(train_some(folder, method, 2, false) == one);
      for (const int devices : {1, 2, 4}) {
        INFO(devices << " devices");
        CHECK(train_some(folder, method, devices, true) == one);
      }
    }
}

TEST_CASE("work of homes whose memory is elsewhere, dropped and begun again anywhere: same bits") {
  for (const std::string family : {"llama_tied", "llama31_rope_untied"})
    for (const auto method : {training_method::full, training_method::lora}) {
      INFO(family << (method == training_method::full ? ", full" : ", LoRA"));
      const auto folder = golden("tiny/" + family);
      const auto one = train_some(folder, method, 1, false);
      for (const int devices : {2, 4}) {
        INFO(devices << " devices");
        const auto last = static_cast<std::size_t>(devices) - 1;
        CHECK(train_some(folder, method, devices, true, [last](training_job& job) {
                job.executor = [last](std::size_t) { return last; };
              }) == one);
        for (const unsigned seed : {17U, 18U, 19U}) {
          std::mt19937 random(seed);
          INFO("seed " << seed);
          CHECK(train_some(folder, method, devices, true, [&](training_job& job) {
                  job.executor = [&](std::size_t) { return random() % (last + 1); };
                  job.drops = [&] { return random() % 20 == 0; };
                }) == one);
        }
      }
    }
}

TEST_CASE("each rank has one buddy, on another host wherever that can be") {
  CHECK(train::buddies_of({"a"}) == std::vector{-1});
  CHECK(train::buddies_of({"", ""}) == std::vector{1, 0});
  CHECK(train::buddies_of({"", "", "", ""}) == std::vector{1, 2, 3, 0});
  for (const std::vector<std::string>& hosts : {std::vector<std::string>{"a", "b"},
                                                {"a", "a", "b", "b"},
                                                {"a", "b", "a", "b"},
                                                {"b", "a", "c", "a"},
                                                {"", "x", "y", "", "x", "x", "z", "z"}}) {
    const auto buddies = train::buddies_of(hosts);
    CHECK(std::set<int>(buddies.begin(), buddies.end()).size() == hosts.size());
    for (std::size_t rank = 0; rank < hosts.size(); ++rank)
      CHECK(hosts[static_cast<std::size_t>(buddies[rank])] != hosts[rank]);
  }
  const auto crowded = train::buddies_of({"a", "a", "a", "b"});
  CHECK(std::set<int>(crowded.begin(), crowded.end()).size() == 4);
  for (int rank = 0; rank < 4; ++rank) CHECK(crowded[static_cast<std::size_t>(rank)] != rank);
}

namespace {

// A checkpoint of the step done as a group without `gone` writes it: that one's shard is read from
// its copy at the next rank. -1: nobody is gone.
std::filesystem::path written_without(int gone, training_job& job, int devices,
                                      const std::filesystem::path& folder) {
  train::checkpoint_facts facts;
  facts.job = "job";
  facts.step = 3;
  facts.settings = settings_of(training_method::full);
  facts.layout = job.memory().group.parameters;
  std::vector<memory_range> shards;
  for (int rank = 0; rank < devices; ++rank) {
    const auto own = job.memory().group.shards[static_cast<std::size_t>(rank)];
    shards.push_back({rank, arena_kind::parameters, own.begin, own.floats()});
  }
  auto writer = train::checkpoint_writer::begin(folder, facts, shards);
  REQUIRE(writer);
  while (const auto wanted = (*writer)->wants()) {
    const auto from =
        wanted->rank == gone ? train::kept_at(*wanted, (gone + 1) % devices) : *wanted;
    std::vector<float> numbers(wanted->count);
    const auto read =
        job.memory(static_cast<std::size_t>(from.rank)).read(from, [&](std::size_t bytes) {
          CHECK(bytes == numbers.size() * sizeof(float));
          return reinterpret_cast<std::byte*>(numbers.data());
        });
    REQUIRE(read);
    REQUIRE((*writer)->write(numbers));
  }
  auto path = (*writer)->finish(9);
  REQUIRE(path);
  return *path;
}

struct state_of_job {
  std::vector<float> parameters;
  std::vector<float> first;
  std::vector<float> second;
  bool operator==(const state_of_job&) const = default;
};

state_of_job read_state(const std::filesystem::path& checkpoint, std::size_t floats) {
  state_of_job state{std::vector<float>(floats), std::vector<float>(floats),
                     std::vector<float>(floats)};
  REQUIRE(train::read_parameters(checkpoint, state.parameters));
  REQUIRE(train::read_moments(checkpoint, 0, state.first, state.second));
  return state;
}

// Three steps, after the last of which everybody's shard is copied; half a step more.
std::unique_ptr<training_job> copied_job(const std::filesystem::path& model, training_method method,
                                         int devices, bool copies) {
  auto job = std::make_unique<training_job>(
      model,
      training_job::setup{.settings = settings_of(method), .devices = devices, .apart = true});
  std::mt19937 random(11);
  for (int step = 0; step < 3; ++step) job->step(random_rounds(random, 2, 4, 320));
  if (copies) job->copy_shards();
  job->accumulate(random_rounds(random, 2, 4, 320));
  return job;
}

}  // namespace

TEST_CASE("whoever dies, its copy has the bits of its parameters and moments") {
  for (const auto method : {training_method::full, training_method::lora})
    for (const int devices : {2, 4}) {
      INFO((method == training_method::full ? "full, " : "LoRA, ") << devices << " devices");
      const temporary_folder folder;
      const auto model = golden("tiny/llama_tied");
      const auto job = copied_job(model, method, devices, true);
      const auto floats = job->memory().group.floats();
      const auto truth = read_state(written_without(-1, *job, devices, folder.path()), floats);
      for (int gone = 0; gone < devices; ++gone)
        CHECK(read_state(written_without(gone, *job, devices, folder.path()), floats) == truth);
      // Nothing was brought: the copy is another step's.
      const auto without = copied_job(model, method, devices, false);
      CHECK(read_state(written_without(-1, *without, devices, folder.path()), floats) == truth);
      CHECK_FALSE(read_state(written_without(0, *without, devices, folder.path()), floats) ==
                  truth);
    }
}

TEST_CASE("a copy takes what the plan says, and none is kept where there is no room") {
  const auto settings = settings_of(training_method::full);
  const auto model = golden("tiny/llama_tied");
  std::uint64_t wanted = 0;
  {
    training_job job(model, {.settings = settings, .devices = 2, .apart = true});
    const auto& facts = job.trainer().facts();
    CHECK(facts.keeps == 1);
    CHECK(facts.memory.copies == 3 * job.memory().group.shards[1].floats() * sizeof(float));
    CHECK(job.book()->used_by(memory::owner::optimizer) ==
          facts.memory.optimizer + facts.memory.copies);
    wanted = std::max(facts.memory.total(), job.trainer(1).facts().memory.total());
  }
  training_job tight(model,
                     {.settings = settings, .devices = 2, .memory = wanted - 1'000, .apart = true});
  const auto narrow = std::min(tight.trainer(0).facts().keeps, tight.trainer(1).facts().keeps);
  CHECK(narrow == -1);
  for (const std::size_t rank : {0U, 1U}) {
    const auto& facts = tight.trainer(rank).facts();
    CHECK((facts.memory.copies > 0) == (facts.keeps >= 0));
    CHECK(tight.book(rank)->used() <= wanted - 1'000);
  }
}

TEST_CASE("room for others' work is planned, booked, and given back") {
  for (const auto method : {training_method::full, training_method::lora}) {
    const auto book = [&] {
      training_job job(golden("tiny/llama_tied"),
                       {.settings = settings_of(method), .devices = 2, .apart = true});
      const auto& plan = job.trainer().facts().memory;
      CHECK(plan.guests == train::guest_floats(job.memory().group, 0) * sizeof(float));
      CHECK(plan.guests >= plan.parameters);
      CHECK(plan.serving_copies == 0);
      CHECK(job.book()->used_by(memory::owner::gradients) == plan.gradients + plan.guests);
      return job.book();
    }();
    CHECK(book->used() == 0);
  }
}

TEST_CASE("what does not lie in a memory is refused, read and written") {
  training_job job(golden("tiny/llama_tied"),
                   {.settings = settings_of(training_method::full), .devices = 2, .apart = true});
  auto& memory = job.memory();
  const auto own = memory.own;
  const std::vector<std::byte> bytes(8);
  const auto refuses = [&](const memory_range& what) {
    CHECK_FALSE(memory.read(what, [](std::size_t) -> std::byte* {
      FAIL("room for what does not lie here");
      return nullptr;
    }));
    const auto written = memory.write(what, bytes);
    REQUIRE_FALSE(written);
    CHECK_FALSE(written.error().detail.empty());
  };
  refuses({0, arena_kind::summed, own.end - 1, 2});
  refuses({0, arena_kind::first_moments, own.end, 2});
  refuses({0, arena_kind::parameters, ~std::size_t{0}, 2});
  refuses({0, arena_kind::gradients, memory.group.floats(), 2});
  refuses({1, arena_kind::gradients, 0, 2});  // nothing was expected of it
  refuses({2, arena_kind::gradients, 0, 2});
  refuses({-1, arena_kind::gradients, 0, 2});
  // Bytes of another count than the range's, and more ids than a round has.
  CHECK_FALSE(memory.write({0, arena_kind::gradients, 0, 3}, bytes));
  CHECK_FALSE(memory.write({0, arena_kind::gradients, 0, 2}, std::span(bytes).first(7)));
  const std::vector<std::byte> many((memory.group.embedded_rows + 1) * 4);
  CHECK_FALSE(memory.write({0, arena_kind::embedded_ids, 0, many.size() / 4}, many));
  CHECK_FALSE(memory.expect(order_kind::update, 2));
  training_job shared(golden("tiny/llama_tied"),
                      {.settings = settings_of(training_method::full), .devices = 2});
  CHECK_FALSE(shared.memory().expect(order_kind::update, 1));
}

TEST_CASE("a group that shares no memory publishes nothing from its devices") {
  training_job job(golden("tiny/llama_tied"),
                   {.settings = settings_of(training_method::lora), .devices = 2, .apart = true});
  auto order = job.order_of(order_kind::publish);
  const auto begun = job.trainer().begin(order);
  REQUIRE_FALSE(begun);
  CHECK(begun.error().detail.find("checkpoints") != std::string::npos);
}
