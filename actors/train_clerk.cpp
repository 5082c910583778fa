#include "actors/train_clerk.hpp"

#include "actors/fault.hpp"
#include "runtime/text/value.hpp"
#include "runtime/train/job_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <utility>

namespace tandem::actors {
namespace {

constexpr int events_at_once = 1000;
constexpr int checkpoints_at_once = 100;

// What decides how examples are read before any setting is settled.
struct reading {
  std::int64_t most_tokens = 0;
  train::too_long long_examples = train::too_long::refuse;
  // What dated templates take for today: a job that goes on tomorrow must read what it read today.
  std::int64_t now = 0;
};

result<std::shared_ptr<const train::dataset>> read_file(const train_context& context,
                                                        const std::string& file, const reading& how,
                                                        const std::atomic<bool>& given_up) {
  auto known = context.store->find_file(file);
  if (!known) return known.error();
  auto reader = context.reader;
  reader.now = how.now;
  auto data = train::read_dataset(context.store->file_path(file), reader, how.most_tokens,
                                  how.long_examples, [&](double) { return !given_up.load(); });
  if (!data) {
    auto why = data.error();
    why.detail = fmt::format("{} ({}): {}", file, known->filename, why.detail);
    return why;
  }
  return std::make_shared<const train::dataset>(*std::move(data));
}

reading reading_of(const train_context& context, const store::job_record& job,
                   const text::value& own) {
  reading how{context.config.context_length, train::too_long::refuse, job.created_at};
  if (const auto* length = own.find("sequence_length"); length && length->if_int())
    how.most_tokens = std::min(how.most_tokens, *length->if_int());
  if (const auto* word = own.find("long_examples"); word && word->if_string()) {
    if (*word->if_string() == "truncate") how.long_examples = train::too_long::truncate;
    if (*word->if_string() == "skip") how.long_examples = train::too_long::skip;
  }
  return how;
}

void note_data(const train::dataset& data, std::string_view what, std::vector<std::string>& notes) {
  notes.push_back(fmt::format("{}: {} examples, {} tokens, {} of them counted, longest {}", what,
                              data.examples.size(), data.tokens, data.counted, data.longest));
  if (data.truncated > 0)
    notes.push_back(fmt::format("{} examples of the {} were cut to fit", data.truncated, what));
  if (data.skipped > 0)
    notes.push_back(
        fmt::format("{} examples of the {} were too long and left out", data.skipped, what));
}

result<prepared_job> prepare(const train_context& context, const std::string& id,
                             const std::atomic<bool>& given_up) {
  auto job = context.store->find_job(id);
  if (!job) return job.error();
  const auto hyperparameters = text::value::from_json(job->hyperparameters_json);
  if (!hyperparameters) return hyperparameters.error();
  const auto own = text::value::from_json(job->own_json);
  if (!own) return own.error();

  const auto how = reading_of(context, *job, *own);
  auto training = read_file(context, job->training_file, how, given_up);
  if (!training) return training.error();
  prepared_job ready;
  note_data(**training, "training file", ready.notes);

  // Settled once: a job that goes on keeps what it began with.
  const auto before = text::value::from_json(job->settings_json);
  if (before && !before->is_null()) {
    auto settings = train::settings_from(*before);
    if (!settings) return settings.error();
    ready.settings = *std::move(settings);
  } else {
    auto settings = train::settle_options(
        *hyperparameters, *own, context.config,
        {static_cast<std::int64_t>((*training)->examples.size()), (*training)->longest},
        context.default_slots, static_cast<std::uint64_t>(job->seed));
    if (!settings) return settings.error();
    ready.settings = *std::move(settings);
  }
  ready.training = std::make_shared<const train::step_planner>(*training, ready.settings);
  if (!job->validation_file.empty()) {
    auto validation = read_file(
        context, job->validation_file,
        {ready.settings.sequence_length, ready.settings.long_examples, how.now}, given_up);
    if (!validation) return validation.error();
    note_data(**validation, "validation file", ready.notes);
    ready.validation = std::make_shared<const train::step_planner>(*validation, ready.settings);
  }
  const auto found = train::find_checkpoint(checkpoint_folder(context, id));
  for (const auto& broken : found.broken)
    ready.notes.push_back("a checkpoint is broken and is not used: " + broken);
  if (found.path) {
    auto facts = train::read_checkpoint_facts(*found.path);
    if (!facts) return facts.error();
    ready.checkpoint = found.path->string();
    ready.trained_tokens = facts->trained_tokens;
  }
  if (auto listed = context.store->list_checkpoints(id, "", checkpoints_at_once); listed)
    for (const auto& one : listed->rows) ready.checkpoint_names.push_back(one.model);
  return ready;
}

std::string cell(const text::value& metrics, std::string_view name) {
  const auto* found = metrics.find(name);
  return found && !found->is_null() ? found->to_json() : std::string();
}

// The steps' metrics as OpenAI's result file has them: CSV, one line a step.
std::string results_csv(const store::store& store, const std::string& job) {
  std::string csv = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n";
  // A step that was computed twice, because the process died after it, is told once: the last time.
  std::map<std::int64_t, std::string> lines;
  std::int64_t next = 0;
  for (;;) {
    const auto events = store.events_since(job, next, events_at_once);
    if (!events || events->empty()) break;
    for (const auto& event : *events) {
      next = event.sequence + 1;
      if (event.type != "metrics") continue;
      const auto metrics = text::value::from_json(event.data_json);
      if (!metrics) continue;
      const auto* step = metrics->find("step");
      if (!step || !step->if_int()) continue;
      lines[*step->if_int()] =
          fmt::format("{},{},{},{},{}\n", *step->if_int(), cell(*metrics, "train_loss"),
                      cell(*metrics, "train_mean_token_accuracy"), cell(*metrics, "valid_loss"),
                      cell(*metrics, "valid_mean_token_accuracy"));
    }
  }
  for (const auto& [step, line] : lines) csv += line;
  return csv;
}

result<results_written> write_all_results(const train_context& context,
                                          const write_results& order) {
  auto hash = train::parameters_hash(order.checkpoint);
  if (!hash) return hash.error();
  const auto csv = results_csv(*context.store, order.job);
  const auto folder = context.directory / order.job;
  const auto draft = folder / "results.csv";
  std::ofstream file(draft, std::ios::binary | std::ios::trunc);
  file << csv;
  file.close();
  if (!file) return error{errc::io, fmt::format("cannot write {}", draft.string()), ""};
  store::file_record record;
  record.filename = order.job + "-results.csv";
  record.purpose = "fine-tune-results";
  record.bytes = static_cast<std::int64_t>(csv.size());
  auto added = context.store->add_file(std::move(record), draft);
  if (!added) return added.error();
  return results_written{added->id, *std::move(hash)};
}

// --- the checkpoint of a group apart: range by range, as they come from their couriers -----------

using clerk_self = train_clerk_actor::stateful_pointer<train_clerk_state>;
using saving = caf::typed_response_promise<checkpoint_saved>;

constexpr auto fetch_deadline = std::chrono::minutes(2);

result<void> take_in(train_clerk_state& state, const train::memory_range& what,
                     const tensor_ref& came) {
  const auto bytes = came.data->bytes();
  if (bytes.size() != what.count * sizeof(float))
    return error{errc::io,
                 fmt::format("{} bytes of rank {} came for a checkpoint, {} were asked for",
                             bytes.size(), what.rank, what.count * sizeof(float)),
                 ""};
  // A buffer's memory is aligned for any number.
  return state.writer->write({reinterpret_cast<const float*>(bytes.data()), what.count});
}

// The promise is kept once: with what was written, or why it was not.
void save_next(clerk_self self, const std::shared_ptr<const save_checkpoint>& order, saving answer);

void end_saving(clerk_self self, saving answer, const caf::error& why) {
  self->state.writer.reset();
  answer.deliver(why);
}

std::optional<int> copy_at(const save_checkpoint& order, int rank) {
  if (order.copies_at.empty()) return std::nullopt;
  const int buddy = order.copies_at[static_cast<std::size_t>(rank)];
  return buddy < 0 ? std::nullopt : std::optional(buddy);
}

void fetch(clerk_self self, const std::shared_ptr<const save_checkpoint>& order, saving answer,
           const train::memory_range& what) {
  const auto& silent = self->state.silent;
  const bool from_copy = silent.contains(what.rank);
  const auto from = from_copy ? train::kept_at(what, *copy_at(*order, what.rank)) : what;
  const auto& courier = order->couriers[static_cast<std::size_t>(from.rank)];
  // With its buddy gone, too, there is nobody to ask.
  if (!courier)
    return end_saving(
        self, answer,
        to_caf({errc::unavailable,
                fmt::format("rank {} is gone, and so is who has its copy", what.rank), ""}));
  const auto number = self->state.saves;
  const auto given_up = [=] { return self->state.saves != number; };
  auto lost = [=]() mutable {
    answer.deliver(to_caf({errc::cancelled, "another checkpoint was begun", ""}));
  };
  self->request(courier, fetch_deadline, fetch_range{from})
      .then(
          [=](const tensor_ref& came) mutable {
            if (given_up()) return lost();
            if (auto taken = take_in(self->state, what, came); !taken)
              return end_saving(self, answer, to_caf(taken.error()));
            save_next(self, order, answer);
          },
          [=](const caf::error& why) mutable {
            if (given_up()) return lost();
            if (from_copy || !copy_at(*order, what.rank)) return end_saving(self, answer, why);
            self->state.silent.insert(what.rank);
            fetch(self, order, answer, what);
          });
}

void save_next(clerk_self self, const std::shared_ptr<const save_checkpoint>& order,
               saving answer) {
  auto& state = self->state;
  std::vector<float> room;
  while (const auto what = state.writer->wants()) {
    const auto& here = order->group[static_cast<std::size_t>(what->rank)];
    if (here == nullptr || state.silent.contains(what->rank))
      return fetch(self, order, answer, *what);
    if (auto done = state.writer->write(train::saved_floats(*here, *what, room)); !done)
      return end_saving(self, answer, to_caf(done.error()));
  }
  auto path = state.writer->finish(
      order->facts.settings.checkpoints_kept,
      [&](std::int64_t step) { return step == order->served_step; },
      [&] { return state.context->store->writable(); });
  if (!path) return end_saving(self, answer, to_caf(path.error()));
  state.writer.reset();
  answer.deliver(checkpoint_saved{
      order->facts.step, path->string(), {state.silent.begin(), state.silent.end()}});
}

// One at a time: the coordinator that begins another has given the one before up.
caf::result<checkpoint_saved> save_apart(clerk_self self, const save_checkpoint& order) {
  auto& state = self->state;
  ++state.saves;
  state.writer.reset();  // before the next: it takes its draft along
  auto writer = train::checkpoint_writer::begin(checkpoint_folder(*state.context, order.facts.job),
                                                order.facts, order.shards, moved_bytes_max);
  if (!writer) return to_caf(writer.error());
  state.writer = *std::move(writer);
  state.silent.clear();
  for (int rank = 0; rank < std::ssize(order.couriers); ++rank)
    if (!order.couriers[static_cast<std::size_t>(rank)] && copy_at(order, rank))
      state.silent.insert(rank);
  auto answer = self->make_response_promise<checkpoint_saved>();
  save_next(self, std::make_shared<const save_checkpoint>(order), answer);
  return answer;
}

}  // namespace

std::filesystem::path checkpoint_folder(const train_context& context, const std::string& job) {
  return context.directory / job / "checkpoints";
}

train_clerk_actor::behavior_type train_clerk(
    train_clerk_actor::stateful_pointer<train_clerk_state> self,
    std::shared_ptr<const train_context> context,
    std::shared_ptr<const std::atomic<bool>> given_up) {
  keep_exception_text(self);
  self->state.context = std::move(context);
  self->state.given_up = std::move(given_up);
  return {
      [=](const prepare_job& order) -> caf::result<prepared_job> {
        auto ready = prepare(*self->state.context, order.job, *self->state.given_up);
        if (!ready) return to_caf(ready.error());
        return *std::move(ready);
      },
      [=](const save_checkpoint& order) -> caf::result<checkpoint_saved> {
        const auto& facts = order.facts;
        if (auto ours = self->state.context->store->writable(); !ours) return to_caf(ours.error());
        if (!order.couriers.empty()) return save_apart(self, order);
        auto path = train::write_checkpoint(
            checkpoint_folder(*self->state.context, facts.job), facts, order.group,
            facts.settings.checkpoints_kept,
            [&](std::int64_t step) { return step == order.served_step; },
            [&] { return self->state.context->store->writable(); });
        if (!path) return to_caf(path.error());
        return checkpoint_saved{facts.step, path->string(), {}};
      },
      [=](const write_results& order) -> caf::result<results_written> {
        auto written = write_all_results(*self->state.context, order);
        if (!written) return to_caf(written.error());
        return *std::move(written);
      },
  };
}

}  // namespace tandem::actors
