#include "runtime/train/step_planner.hpp"

#include "runtime/train/example_order.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <random>

using namespace tandem::train;

namespace {

// Example i holds the ids i, i, i…: every token says whose it is.
std::shared_ptr<const dataset> data_of(const std::vector<std::size_t>& lengths) {
  auto data = std::make_shared<dataset>();
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    example e;
    e.ids.assign(lengths[i], static_cast<token_id>(i));
    e.targets.assign(lengths[i], static_cast<token_id>(i));
    e.targets.back() = -1;
    if (lengths[i] > 2) e.targets.front() = -1;
    data->examples.push_back(std::move(e));
  }
  return data;
}

std::shared_ptr<const dataset> data_of_random_lengths(std::mt19937& random, std::size_t count,
                                                      std::size_t longest) {
  std::vector<std::size_t> lengths(count);
  for (std::size_t& length : lengths) length = 2 + random() % (longest - 1);
  return data_of(lengths);
}

// Which examples rows hold, by walking their tokens; every slot is checked on the way.
std::vector<std::int64_t> examples_in(const step_rows& rows, const dataset& data) {
  std::vector<std::int64_t> found;
  for (const round_rows& round : rows.rounds)
    for (const slot_rows& slot : round.slots) {
      REQUIRE(slot.ids.size() == slot.targets.size());
      std::size_t at = 0;
      for (const std::int32_t length : slot.example_rows) {
        const token_id which = slot.ids.at(at);
        const example& e = data.examples.at(static_cast<std::size_t>(which));
        REQUIRE(static_cast<std::size_t>(length) == e.ids.size());
        REQUIRE(std::equal(e.ids.begin(), e.ids.end(), slot.ids.begin() + std::ptrdiff_t(at)));
        REQUIRE(std::equal(e.targets.begin(), e.targets.end(),
                           slot.targets.begin() + std::ptrdiff_t(at)));
        found.push_back(which);
        at += e.ids.size();
      }
      REQUIRE(at == slot.ids.size());
    }
  return found;
}

std::int64_t counted_in(const step_rows& rows) {
  std::int64_t counted = 0;
  for (const round_rows& round : rows.rounds)
    for (const slot_rows& slot : round.slots)
      counted += std::count_if(slot.targets.begin(), slot.targets.end(),
                               [](token_id t) { return t >= 0; });
  return counted;
}

template <class T>
std::vector<T> sorted(std::vector<T> list) {
  std::sort(list.begin(), list.end());
  return list;
}

job_settings random_settings(std::mt19937& random) {
  job_settings s;
  s.epochs = 1 + static_cast<int>(random() % 3);
  s.batch_size = 1 + random() % 9;
  s.slots = 1 << (random() % 4);
  s.micro_batch = 1 + static_cast<int>(random() % 3);
  s.sequence_length = 24;
  s.packing = random() % 2 == 0;
  s.shuffle = random() % 4 != 0;
  s.seed = random();
  return s;
}

}  // namespace

TEST_CASE("every example is in exactly one step of every epoch, whatever the sizes") {
  std::mt19937 random(7);
  for (int turn = 0; turn < 200; ++turn) {
    const auto data = data_of_random_lengths(random, 1 + random() % 60, 24);
    const job_settings s = random_settings(random);
    const step_planner planner(data, s);
    REQUIRE(planner.step_count() == planner.steps_per_epoch() * s.epochs);
    for (int epoch = 0; epoch < s.epochs; ++epoch) {
      std::vector<std::int64_t> seen;
      for (std::int64_t i = 1; i <= planner.steps_per_epoch(); ++i) {
        const std::int64_t step = epoch * planner.steps_per_epoch() + i;
        const step_rows rows = planner.rows_of(step);
        CHECK(rows.step == step);
        CHECK(rows.counted == counted_in(rows));
        const auto in_rows = examples_in(rows, *data);
        CHECK(sorted(in_rows) == sorted(planner.examples_of(step)));
        const bool last = i == planner.steps_per_epoch();
        CHECK((last || std::int64_t(in_rows.size()) == s.batch_size));
        seen.insert(seen.end(), in_rows.begin(), in_rows.end());
      }
      std::vector<std::int64_t> all(data->examples.size());
      std::iota(all.begin(), all.end(), 0);
      CHECK(sorted(seen) == all);
    }
  }
}

TEST_CASE("packing changes how rows lie and not which examples a step reads") {
  std::mt19937 random(11);
  for (int turn = 0; turn < 50; ++turn) {
    const auto data = data_of_random_lengths(random, 1 + random() % 60, 24);
    job_settings s = random_settings(random);
    s.packing = true;
    const step_planner packed(data, s);
    s.packing = false;
    const step_planner apart(data, s);
    for (std::int64_t step = 1; step <= packed.step_count(); ++step) {
      const step_rows a = packed.rows_of(step);
      const step_rows b = apart.rows_of(step);
      CHECK(sorted(examples_in(a, *data)) == sorted(examples_in(b, *data)));
      CHECK(a.counted == b.counted);
      CHECK(a.rounds.size() <= b.rounds.size());
    }
  }
}

TEST_CASE("a row holds at most sequence_length tokens, and a slot micro_batch rows") {
  std::mt19937 random(13);
  for (int turn = 0; turn < 50; ++turn) {
    const auto data = data_of_random_lengths(random, 40, 24);
    const job_settings s = random_settings(random);
    const step_planner planner(data, s);
    for (std::int64_t step = 1; step <= planner.step_count(); ++step)
      for (const round_rows& round : planner.rows_of(step).rounds) {
        CHECK(round.slots.size() == std::size_t(s.slots));
        for (const slot_rows& slot : round.slots)
          CHECK(std::int64_t(slot.ids.size()) <= s.sequence_length * s.micro_batch);
      }
  }
}

TEST_CASE("examples go to the first row with room, in reading order") {
  job_settings s;
  s.batch_size = 5;
  s.slots = 4;
  s.sequence_length = 10;
  s.shuffle = false;
  const step_rows rows = step_planner(data_of({6, 7, 4, 3, 5}), s).rows_of(1);
  REQUIRE(rows.rounds.size() == 1);
  const auto& slots = rows.rounds[0].slots;
  CHECK(slots[0].ids == std::vector<token_id>{0, 0, 0, 0, 0, 0, 2, 2, 2, 2});
  CHECK(slots[0].example_rows == std::vector<std::int32_t>{6, 4});
  CHECK(slots[1].ids == std::vector<token_id>{1, 1, 1, 1, 1, 1, 1, 3, 3, 3});
  CHECK(slots[2].ids == std::vector<token_id>{4, 4, 4, 4, 4});
}

TEST_CASE("rows are dealt micro_batch at a time to slots in turn, then to the next round") {
  job_settings s;
  s.batch_size = 9;
  s.slots = 2;
  s.micro_batch = 2;
  s.packing = false;
  s.shuffle = false;
  s.sequence_length = 2;
  const step_rows rows = step_planner(data_of(std::vector<std::size_t>(9, 2)), s).rows_of(1);
  REQUIRE(rows.rounds.size() == 3);
  CHECK(rows.rounds[0].slots[0].ids == std::vector<token_id>{0, 0, 1, 1});
  CHECK(rows.rounds[0].slots[1].ids == std::vector<token_id>{2, 2, 3, 3});
  CHECK(rows.rounds[1].slots[0].ids == std::vector<token_id>{4, 4, 5, 5});
  CHECK(rows.rounds[1].slots[1].ids == std::vector<token_id>{6, 6, 7, 7});
  CHECK(rows.rounds[2].slots[0].ids == std::vector<token_id>{8, 8});
}

TEST_CASE("slots without rows are there and empty") {
  job_settings s;
  s.batch_size = 1;
  s.slots = 4;
  const step_rows rows = step_planner(data_of({3}), s).rows_of(1);
  REQUIRE(rows.rounds.size() == 1);
  REQUIRE(rows.rounds[0].slots.size() == 4);
  for (std::size_t slot = 1; slot < 4; ++slot) CHECK(rows.rounds[0].slots[slot] == slot_rows());
}

TEST_CASE("a planner made in the middle of a job reads on exactly where another one was") {
  std::mt19937 random(17);
  const auto data = data_of_random_lengths(random, 37, 24);
  job_settings s = random_settings(random);
  s.epochs = 3;
  s.shuffle = true;
  const step_planner whole(data, s);
  for (std::int64_t step = whole.step_count(); step >= 1; --step)
    CHECK(step_planner(data, s).rows_of(step) == whole.rows_of(step));
}

TEST_CASE("epochs have different orders, seeds too, and without shuffle it is the file's") {
  const auto data = data_of(std::vector<std::size_t>(50, 2));
  job_settings s;
  s.epochs = 2;
  s.batch_size = 50;
  const auto first = step_planner(data, s).examples_of(1);
  CHECK(first != step_planner(data, s).examples_of(2));
  s.seed = 1;
  CHECK(first != step_planner(data, s).examples_of(1));
  s.shuffle = false;
  std::vector<std::int64_t> file(50);
  std::iota(file.begin(), file.end(), 0);
  CHECK(step_planner(data, s).examples_of(1) == file);
  CHECK(step_planner(data, s).examples_of(2) == file);
}

TEST_CASE("the order of examples is the same for ever") {
  using order = std::vector<std::uint32_t>;
  CHECK(shuffled_order(10, 0, 0) == order{4, 7, 0, 5, 9, 3, 6, 2, 8, 1});
  CHECK(shuffled_order(10, 0, 1) == order{7, 8, 4, 0, 9, 2, 6, 3, 5, 1});
  CHECK(shuffled_order(10, 18446744073709551615U, 0) == order{8, 7, 1, 0, 6, 5, 3, 4, 2, 9});
  CHECK(shuffled_order(1, 5, 0) == order{0});
  CHECK(shuffled_order(0, 5, 0).empty());
}

TEST_CASE("every order of four examples comes up as often as the others") {
  std::map<std::vector<std::uint32_t>, int> seen;
  for (std::uint64_t seed = 0; seed < 24'000; ++seed) ++seen[shuffled_order(4, seed, 3)];
  CHECK(seen.size() == 24);
  // 1,000 expected; a fair shuffle leaves 5 standard deviations once in a million.
  for (const auto& [order, times] : seen) CHECK(std::abs(times - 1000) < 160);
}

TEST_CASE("validation reads all examples once, in the file's order, by batches") {
  std::mt19937 random(19);
  const auto data = data_of_random_lengths(random, 23, 24);
  job_settings s;
  s.batch_size = 5;
  s.sequence_length = 24;
  s.packing = false;
  const step_planner planner(data, s);
  REQUIRE(planner.evaluation_batches() == 5);
  std::vector<std::int64_t> seen;
  for (std::int64_t batch = 0; batch < 5; ++batch) {
    const step_rows rows = planner.evaluation_rows(batch);
    CHECK(rows.counted == counted_in(rows));
    for (const std::int64_t one : examples_in(rows, *data)) seen.push_back(one);
  }
  std::vector<std::int64_t> file(23);
  std::iota(file.begin(), file.end(), 0);
  CHECK(seen == file);
}

TEST_CASE("the learning rate warms up, then follows its schedule to the last step") {
  job_settings s;
  s.learning_rate = 1.0;
  const auto rates = [&](std::int64_t count) {
    std::vector<double> out;
    for (std::int64_t step = 1; step <= count; ++step)
      out.push_back(learning_rate_at(s, step, count));
    return out;
  };
  const auto near = [](const std::vector<double>& got, const std::vector<double>& wanted) {
    REQUIRE(got.size() == wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(wanted[i]).margin(1e-12));
  };
  s.schedule = schedule_kind::constant;
  near(rates(3), {1, 1, 1});
  s.schedule = schedule_kind::linear;
  near(rates(4), {1, 0.75, 0.5, 0.25});
  s.schedule = schedule_kind::cosine;
  near(rates(4), {1, 0.853553390593, 0.5, 0.146446609407});
  s.schedule = schedule_kind::warmup_stable_decay;
  near(rates(10), {1, 1, 1, 1, 1, 1, 1, 1, 2.0 / 3, 1.0 / 3});
  s.warmup_steps = 2;
  near(rates(4), {0.5, 1, 1, 0.5});
  s.schedule = schedule_kind::linear;
  near(rates(6), {0.5, 1, 1, 0.75, 0.5, 0.25});
  near(rates(2), {0.5, 1});
  s.warmup_steps = 10;
  near(rates(2), {0.1, 0.2});
}

TEST_CASE("no schedule leaves the range from 0 to the full rate") {
  std::mt19937 random(23);
  for (int turn = 0; turn < 500; ++turn) {
    job_settings s;
    s.learning_rate = 3e-4;
    s.schedule = static_cast<schedule_kind>(random() % 4);
    const std::int64_t count = 1 + random() % 40;
    s.warmup_steps = random() % 45;
    for (std::int64_t step = 1; step <= count; ++step) {
      const double rate = learning_rate_at(s, step, count);
      CHECK(rate > 0.0);
      CHECK(rate <= 3e-4);
    }
  }
}
