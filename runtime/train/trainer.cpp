#include "runtime/train/trainer.hpp"

#include "runtime/train/resume.hpp"
#include "runtime/train/serving_copy.hpp"
#include "runtime/train/trainer_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <utility>

namespace tandem::train {

namespace {

error refused(std::string detail) { return {errc::bad_request, std::move(detail), {}}; }

result<void> check_slot(const slot_rows& slot, std::int64_t rows_max, std::int64_t example_max,
                        std::int64_t vocabulary) {
  const auto T = std::ssize(slot.ids);
  if (T > rows_max)
    return refused(fmt::format("a slot of {} rows, the job was opened for {}", T, rows_max));
  if (std::ssize(slot.targets) != T)
    return refused(fmt::format("{} targets for {} rows", slot.targets.size(), T));
  std::int64_t covered = 0;
  for (const auto rows : slot.example_rows) {
    if (rows < 1 || rows > example_max)
      return refused(fmt::format("an example of {} rows, they have 1 to {}", rows, example_max));
    covered += rows;
  }
  if (covered != T) return refused(fmt::format("examples of {} rows in a slot of {}", covered, T));
  const auto bad_id = [&](token_id id) { return id < 0 || id >= vocabulary; };
  if (std::any_of(slot.ids.begin(), slot.ids.end(), bad_id) ||
      std::any_of(slot.targets.begin(), slot.targets.end(),
                  [&](token_id id) { return id != -1 && bad_id(id); }))
    return refused(
        fmt::format("a token id that is not one of the {} of the vocabulary", vocabulary));
  return {};
}

// Of full training. A checkpoint has all of them: the base's need not be read before.
result<std::shared_ptr<const model::weights>> masters_of(
    kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
    const model::model_source& base, bool has_checkpoint, const pause_point& pause) {
  if (!has_checkpoint)
    return base.load(device, *book, model::load_format::f32, [&pause](double) { pause(); });
  auto made = reserve_weights(device, book, base.config(), "f32", memory::owner::weights,
                              "a job's parameters");
  if (!made) return made.error();
  return std::shared_ptr<const model::weights>(*std::move(made));
}

}  // namespace

result<std::unique_ptr<trainer>> trainer::open(kernels::backend& device,
                                               std::shared_ptr<memory::ledger> book,
                                               std::shared_ptr<const model::weights> base,
                                               const open_order& order, const pause_point& pause,
                                               kernels::collective* ranks) {
  const bool lora = order.settings.method == training_method::lora;
  std::shared_ptr<const model::model_source> source;
  if (lora) {
    if (base == nullptr)
      return error{errc::conflict, "LoRA trains over a served model, and none is loaded here", {}};
  } else {
    auto opened = model::model_source::open(order.model_path);
    if (!opened) return opened.error();
    source = std::move(*opened);
  }
  const auto& config = lora ? base->config : source->config();
  auto taken_on = order;
  model::tensor_rank place;
  if (ranks != nullptr) place = {ranks->rank(), ranks->size()};
  ensure(ranks == nullptr || (order.apart && order.device_count == 1), "a job of ranks alone");
  auto plan = plan_job(device, config, taken_on, place);
  if (plan && plan->memory.total() > book->free() && order.keeps >= 0) {
    taken_on.keeps = -1;  // a copy of another's shard is for where there is room
    plan = plan_job(device, config, taken_on);
  }
  if (!plan) return plan.error();
  trained_part part;
  if (ranks != nullptr) {
    auto made =
        part_of_rank(device, config, lora ? base.get() : nullptr, source.get(), *ranks, *plan);
    if (!made) return made.error();
    part = std::move(*made);
  }
  if (auto fits = check_fits(*plan, taken_on, *book); !fits) return fits.error();

  auto s = std::make_unique<state>(device, taken_on, std::move(*plan), ranks);
  if (lora) {
    s->base = std::move(base);
  } else if (ranks != nullptr) {
    auto loading =
        model::load_run::reserve(std::move(*part.masters), device, *book, "a job's parameters");
    if (!loading) return loading.error();
    s->loading = std::move(*loading);
    s->source = std::move(source);
    s->exchange = std::make_unique<rank_exchange>(device, s->loading->model()->config, ranks);
    s->parts = std::move(part.layout);
    s->memory->masters = s->loading->model();
  } else {
    auto masters = masters_of(device, book, *source, !order.checkpoint.empty(), pause);
    if (!masters) return masters.error();
    s->memory->masters = std::move(*masters);
  }
  if (auto taken = s->take(std::move(book)); !taken) return taken.error();
  if (s->parted()) {
    s->plan_opening();
  } else if (!order.checkpoint.empty()) {
    const auto step = resume_from(device, order.checkpoint, *s->memory, pause);
    if (!step) return step.error();
    s->facts.step = *step;
  }
  s->facts.memory = s->plan.memory;
  s->facts.trainable_parameters = s->plan.trainable;
  s->facts.layout = s->memory->group;
  s->facts.shared = s->memory;
  s->facts.keeps = s->order.keeps;
  s->group = {s->memory};
  return std::unique_ptr<trainer>(new trainer(std::move(s)));
}

result<memory_plan> trainer::forecast(const kernels::backend& device,
                                      const model::model_source& source, const open_order& order) {
  const auto plan = plan_job(device, source.config(), order);
  if (!plan) return plan.error();
  return plan->memory;
}

result<void> trainer::state::take(std::shared_ptr<memory::ledger> book) {
  auto& m = *memory;
  m.book = std::move(book);
  m.devices = order.device_count;
  m.group = plan.layout;
  m.rank = order.device_rank;
  m.own = m.group.shards[static_cast<std::size_t>(m.rank)];
  if (auto taken = take_parameters(); !taken) return taken.error();
  ensure(m.parameters.size_bytes() + plan.table_bytes == plan.memory.parameters,
         "parameters as they were planned");
  m.shard_parameters = {m.own.begin, m.parameters.subspan(m.own.begin, m.own.floats())};
  if (auto taken = take_arenas(); !taken) return taken.error();
  if (order.apart && m.devices > 1)
    if (auto taken = m.take_guests(); !taken) return taken.error();
  if (order.keeps >= 0)
    if (auto taken = m.take_copy(order.keeps); !taken) return taken.error();

  trained_model what;
  what.weights = lora() ? base : m.masters;
  what.gradient = {reinterpret_cast<const std::byte*>(m.parameters.data()),
                   reinterpret_cast<std::byte*>(m.gradients.floats.data())};
  if (parted()) what.table_VD = table();
  m.embedded_ids.reserve(m.group.embedded_rows);
  what.add_embedding = m.devices == 1;
  if (lora()) {
    what.adapter = &m.adapter->layers;
    what.adapter_scale = plan.adapter.scale;
    zeros = structural_zeros(device, base->config, plan.adapter,
                             std::as_writable_bytes(m.gradients.floats));
  }
  pass = std::make_unique<train_pass>(device, std::move(what), plan.limits,
                                      m.activations.bytes().first(plan.activation_bytes), ranks);
  return {};
}

result<void> trainer::state::take_arenas() {
  auto& m = *memory;
  struct wanted {
    std::size_t bytes;
    memory::owner who;
    const char* what;
    std::function<void(memory::arena)> keep;
  };
  const auto into = [&m](float_range& range, std::size_t first) {
    return [&m, &range, first](memory::arena arena) {
      range = {first, floats_of(arena)};
      m.held.push_back(std::move(arena));
    };
  };
  const auto own_bytes = m.own.floats() * sizeof(float);
  const std::array arenas{
      wanted{m.parameters.size_bytes(), memory::owner::gradients, "gradients",
             into(m.gradients, 0)},
      wanted{m.devices > 1 ? own_bytes : 0, memory::owner::gradients, "the group's gradients",
             into(m.summed, m.own.begin)},
      wanted{own_bytes, memory::owner::optimizer, "first moments",
             into(m.first_moments, m.own.begin)},
      wanted{own_bytes, memory::owner::optimizer, "second moments",
             into(m.second_moments, m.own.begin)},
      wanted{plan.memory.activations - plan.embedded_bytes, memory::owner::activations,
             "a training pass's activations",
             [&m](memory::arena arena) { m.activations = std::move(arena); }},
      wanted{plan.embedded_bytes, memory::owner::activations,
             "the embedding's gradients of a round",
             [&m](memory::arena arena) {
               m.embedded_rows = floats_of(arena);
               m.held.push_back(std::move(arena));
             }},
      wanted{plan.table_bytes, memory::owner::weights, "the embedding to look up",
             [&m](memory::arena arena) { m.table = std::move(arena); }},
      wanted{plan.memory.workspace, memory::owner::workspace, "a training pass's workspace",
             [&m](memory::arena arena) { m.workspace = std::move(arena); }}};
  for (const auto& want : arenas) {
    auto arena = memory::arena::reserve(*m.book, want.who, want.bytes, want.what);
    if (!arena) return arena.error();
    want.keep(std::move(*arena));
  }
  return {};
}

result<void> trainer::state::take_parameters() {
  auto& m = *memory;
  if (lora()) {
    auto adapter = blank_adapter();
    if (!adapter) return adapter.error();
    m.adapter = std::move(*adapter);
    start_adapter(device, *m.adapter, order.settings.seed);
    m.parameters = floats_of(m.adapter->memory);
    if (order.apart) return {};
    auto next_published = blank_adapter();
    if (!next_published) return next_published.error();
    spare = std::move(*next_published);
    device.fill_zero(spare->memory.bytes());  // touched now: publishing waits for no page
  } else {
    m.parameters = floats_of(m.masters->memory);
    if (order.apart) return {};
    auto made =
        serving_copy::reserve(device, m.book, m.masters->config, order.settings.serve_format);
    if (!made) return made.error();
    m.copies = std::move(*made);
  }
  return {};
}

result<std::shared_ptr<model::adapter>> trainer::state::blank_adapter() const {
  auto made = model::adapter::reserve(device, *memory->book, base->config, plan.adapter);
  if (made) (*made)->book = memory->book;
  return made;
}

trainer::trainer(std::unique_ptr<state> s) : state_(std::move(s)) {}
trainer::~trainer() = default;

const opened& trainer::facts() const { return state_->facts; }

void trainer::join(std::vector<std::shared_ptr<trainer_memory>> group) {
  auto& s = *state_;
  ensure(std::ssize(group) == s.order.device_count, "all devices of the group");
  s.group.clear();
  for (std::size_t rank = 0; rank < group.size(); ++rank) {
    if (std::cmp_equal(rank, s.order.device_rank)) {
      ensure(group[rank] == nullptr || group[rank] == s.memory, "this device at its own rank");
      s.group.push_back(s.memory);
      continue;
    }
    if (group[rank] == nullptr) {
      ensure(rank < s.memory->mirrors.size() && s.memory->mirrors[rank] != nullptr,
             "a mirror of who shares no memory");
      s.group.push_back(s.memory->mirrors[rank]);
      continue;
    }
    auto device = std::dynamic_pointer_cast<device_memory>(std::move(group[rank]));
    ensure(device != nullptr && device->parameters.size() == s.memory->parameters.size(),
           "devices of one job");
    s.group.push_back(std::move(device));
  }
}

result<void> trainer::state::check(const train::order& what) const {
  if (what.job != order.job)
    return refused(fmt::format("an order of job '{}' for a trainer of '{}'", what.job, order.job));
  const bool of_group = what.kind == order_kind::reduce || what.kind == order_kind::gather;
  if (what.home < 0 || what.home >= order.device_count)
    return refused(fmt::format("home {} of a group of {}", what.home, order.device_count));
  if (order.device_count > 1 && std::ssize(group) != order.device_count)
    return error{errc::conflict,
                 fmt::format("a group of {} devices has not been joined", order.device_count),
                 {}};
  if (what.kind == order_kind::publish && order.apart)
    return refused("devices that do not share memory serve versions from checkpoints");
  if (of_group && order.device_count == 1)
    return refused("one device has nobody to reduce or gather with");
  if (what.kind == order_kind::update &&
      (what.step < 1 || !std::isfinite(what.learning_rate) || !std::isfinite(what.gradient_scale)))
    return refused(fmt::format("an update of step {} with learning rate {} and gradient scale {}",
                               what.step, what.learning_rate, what.gradient_scale));
  if (what.kind != order_kind::accumulate && what.kind != order_kind::evaluate) return {};
  if (std::ssize(what.slots) != plan.slots)
    return refused(fmt::format("{} slots for a device of {}", what.slots.size(), plan.slots));
  if (!std::isfinite(what.scale)) return refused("a scale that is not finite");
  const auto& config = lora() ? base->config : memory->masters->config;
  for (const auto& slot : what.slots)
    if (auto fine = check_slot(slot, plan.slot_rows_max, plan.limits.sequence_length,
                               config.vocabulary_size);
        !fine)
      return fine.error();
  return {};
}

result<void> trainer::begin(train::order what) {
  auto& s = *state_;
  if (s.open_ended)
    return error{errc::conflict, "the order before has not been finished or given up", {}};
  if (auto fine = s.check(what); !fine) return fine.error();
  auto& m = *s.memory;
  s.pieces.clear();
  s.next = 0;
  s.came = {};
  s.came.kind = what.kind;
  s.came.step = what.step;
  s.came.home = what.home;
  s.now = std::move(what);
  auto& home = s.home();

  switch (s.now.kind) {
    case order_kind::accumulate:
    case order_kind::evaluate:
      s.plan_round(std::move(s.now.slots));
      break;
    case order_kind::reduce: {
      embedding_chain chain;
      if (!s.lora()) chain = s.embedding();
      const auto scratch =
          floats_of(m.activations).subspan(s.plan.activation_bytes / sizeof(float));
      plan_reduce(s.device, home, s.group, s.now.round == 0, chain, scratch, s.pieces);
      s.plan_zeros();
      break;
    }
    case order_kind::norm:
    case order_kind::update:
      s.plan_norm_or_update();
      break;
    case order_kind::gather:
      plan_gather(s.device, home, s.group, s.pieces);
      break;
    case order_kind::publish:
      if (s.lora()) {
        if (s.spare == nullptr) {
          auto made = s.blank_adapter();
          if (!made) return made.error();
          s.spare = std::move(*made);
        }
        s.plan_publish_adapter();
      } else {
        auto planned = home.copies->plan(s.device, *m.masters, s.now.version, s.pieces);
        if (!planned) return planned.error();
        s.pieces.emplace_back([&s] { s.came.weights = s.home().copies->newest(); });
      }
      break;
  }
  s.skip_what_is_done();
  s.open_ended = true;
  return {};
}

bool trainer::advance() {
  auto& s = *state_;
  ensure(s.open_ended, "advance without an order");
  if (s.next < s.pieces.size()) {
    const auto start = std::chrono::steady_clock::now();
    // A serving step may have run since the last piece.
    s.device.bind_workspace(s.memory->workspace.bytes(), s.plan.steps);
    s.pieces[s.next++]();
    // A piece takes the time it takes, and a serving step may follow; at the end all is there.
    s.next < s.pieces.size() ? s.device.keep_up() : s.device.finish();
    if (s.resumes()) s.home().progress.pieces_done = s.next;
    s.came.device_ns += std::chrono::duration_cast<std::chrono::nanoseconds>(
                            std::chrono::steady_clock::now() - start)
                            .count();
  }
  return s.next < s.pieces.size();
}

result<outcome> trainer::finish() {
  auto& s = *state_;
  if (!s.open_ended) return error{errc::conflict, "there is no order to finish", {}};
  if (busy())
    return error{
        errc::conflict, fmt::format("{} of {} pieces are done", s.next, s.pieces.size()), {}};
  s.open_ended = false;
  return std::exchange(s.came, {});
}

bool trainer::busy() const { return state_->open_ended && state_->next < state_->pieces.size(); }

void trainer::give_up() {
  auto& s = *state_;
  s.open_ended = false;
  s.pieces.clear();
  s.next = 0;
  s.came = {};
}

}  // namespace tandem::train
