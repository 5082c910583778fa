// Where a job lies: devices are borrowed, open it and know of each other; and whenever others are
// up than before, or some are to leave, the job moves between two steps, by way of a checkpoint.
#include "actors/fault.hpp"
#include "actors/train_flow.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

namespace tandem::actors {
namespace {

constexpr auto lease_deadline = std::chrono::seconds(10);
constexpr auto open_deadline = std::chrono::minutes(30);
constexpr std::uint64_t mib = 1 << 20;

std::string describe(const train::memory_plan& plan) {
  return fmt::format(
      "{} MiB of device memory: parameters {}, gradients {}, optimizer {}, activations {}, "
      "workspace {}, serving copies {}{}{}",
      plan.total() / mib, plan.parameters / mib, plan.gradients / mib, plan.optimizer / mib,
      plan.activations / mib, plan.workspace / mib, plan.serving_copies / mib,
      plan.guests > 0 ? fmt::format(", other devices' work {}", plan.guests / mib) : "",
      plan.copies > 0 ? fmt::format(", copy of another's shard {}", plan.copies / mib) : "");
}

void all_joined(train_self self) {
  auto& state = self->state;
  state.lacks_devices = false;
  state.saved_step = state.step;
  state.whole = true;
  tell_resident(self);
  tell(self, "info",
       fmt::format("{} on {} {}", state.step == 0 ? "Training started" : "Training goes on",
                   state.members.size(), state.members.size() == 1 ? "device" : "devices") +
           (state.step > 0 ? fmt::format(" after step {}", state.step) : ""));
  const bool owes = std::exchange(state.owes_step, false) && state.rows.step == state.step;
  if (owes || state.step >= state.plan.training->step_count())
    after_step(self);
  else
    begin_step(self);
}

// Whose memory this member reads and writes itself.
std::vector<std::shared_ptr<train::trainer_memory>> seen_by(const train_state& state,
                                                            std::size_t rank) {
  std::vector<std::shared_ptr<train::trainer_memory>> group(state.group.size());
  const auto shares = shares_memory(state, static_cast<int>(rank));
  for (std::size_t peer = 0; peer < group.size(); ++peer)
    if (shares[peer]) group[peer] = state.group[peer];
  return group;
}

void join(train_self self) {
  auto& state = self->state;
  if (state.members.size() == 1) return all_joined(self);
  auto missing = std::make_shared<std::size_t>(state.members.size());
  for (std::size_t rank = 0; rank < state.members.size(); ++rank)
    self->request(
            state.members[rank].device, lease_deadline,
            join_training{state.members[rank].now.at, state.options.job, seen_by(state, rank)})
        .then(
            [=, at = state.incarnation] {
              if (self->state.incarnation == at && --*missing == 0) all_joined(self);
            },
            [=, at = state.incarnation](const caf::error& why) {
              if (self->state.incarnation == at) order_failed(self, from_caf(why));
            });
}

// A member without room for the copy it was to keep keeps none.
void keep_copies(train_self self, const std::vector<train::opened>& opened) {
  auto& state = self->state;
  state.copied_step.assign(opened.size(), -1);
  for (std::size_t rank = 0; rank < state.buddies.size(); ++rank) {
    int& buddy = state.buddies[rank];
    if (buddy < 0 || opened[static_cast<std::size_t>(buddy)].keeps == static_cast<int>(rank))
      continue;
    tell(
        self, "info",
        fmt::format("Device {} has no room for a copy of the optimizer state of device {}: if that "
                    "one dies, the job goes on from its newest checkpoint",
                    state.members[static_cast<std::size_t>(buddy)].now.device,
                    state.members[rank].now.device));
    buddy = -1;
  }
}

void all_opened(train_self self, const std::vector<training_opened>& answers) {
  auto& state = self->state;
  state.group.clear();
  std::vector<train::opened> opened;
  for (std::size_t rank = 0; rank < answers.size(); ++rank) {
    state.members[rank].courier = answers[rank].courier;
    opened.push_back(answers[rank].facts);
  }
  state.layout = opened.front().layout;
  state.places.assign(opened.size(), train_state::place::none);
  state.to_be_dropped.assign(opened.size(), false);
  for (const auto& one : opened) {
    state.group.push_back(one.shared);
    if (one.step != opened.front().step)
      return start_over(self, {errc::internal, "devices opened the job at different steps", ""});
  }
  keep_copies(self, opened);
  state.bytes_each = opened.front().memory.total();
  state.work.emplace(static_cast<int>(state.members.size()));
  for (std::size_t rank = 0; rank < state.members.size(); ++rank)
    if (state.members[rank].tenure != 0) state.work->grant(static_cast<int>(rank));
  state.step = opened.front().step;
  state.trained_tokens = state.tokens_at_step = state.plan.trained_tokens;
  state.checkpoint_names = state.plan.checkpoint_names;
  tell(self, "info",
       fmt::format("{} trainable parameters; {}", opened.front().trainable_parameters,
                   describe(opened.front().memory)));
  join(self);
}

// A device without room, one that only serves, or one on a machine without the job's files is left
// out where others can.
bool is_its_own_fault(const train_self& self, const gpu_actor& device, const error& why) {
  if (why.code == errc::no_memory || why.code == errc::unsupported) return true;
  const bool of_files =
      why.code == errc::io || why.code == errc::not_found || why.code == errc::bad_request;
  return of_files && device.node() != self->node();
}

void open_failed(train_self self, const gpu_actor& device, const std::string& name,
                 const error& why) {
  auto& state = self->state;
  if (!is_its_own_fault(self, device, why) || (state.members.size() == 1 && !state.has_others))
    return order_failed(self, why);
  tell(self, "warn", fmt::format("Device {} is left out: {}", name, why.detail));
  state.left_out.insert(name);
  free_devices(self);
  borrow_devices(self);
}

// Devices of another node than the head's own are named after it.
std::string host_of(const std::string& device) {
  const auto slash = device.find('/');
  return slash == std::string::npos ? std::string() : device.substr(0, slash);
}

void choose_buddies(train_state& state) {
  std::vector<std::string> hosts;
  for (const auto& member : state.members) hosts.push_back(host_of(member.now.device));
  state.buddies = state.apart ? train::buddies_of(hosts) : std::vector<int>(hosts.size(), -1);
}

// Whose copy this rank is to keep; -1: nobody's.
int keeps(const train_state& state, int rank) {
  const auto owner = std::ranges::find(state.buddies, rank);
  return owner == state.buddies.end() ? -1 : static_cast<int>(owner - state.buddies.begin());
}

void open(train_self self) {
  auto& state = self->state;
  auto opened = std::make_shared<std::vector<training_opened>>(state.members.size());
  auto missing = std::make_shared<std::size_t>(state.members.size());
  const auto& context = *state.options.context;
  // No kernel of one GPU reads another's memory.
  state.apart =
      context.devices_apart ||
      std::any_of(state.members.begin(), state.members.end(), [&](const auto& member) {
        return member.device.node() != self->node() || (member.gpu && state.members.size() > 1);
      });
  choose_buddies(state);
  for (std::size_t rank = 0; rank < state.members.size(); ++rank) {
    const auto& member = state.members[rank];
    self->monitor(member.device);
    train::open_order order{state.options.job,
                            context.model_path,
                            state.plan.settings,
                            static_cast<int>(state.members.size()),
                            static_cast<int>(rank),
                            state.plan.checkpoint,
                            state.apart,
                            keeps(state, static_cast<int>(rank))};
    self->request(member.device, open_deadline, open_training{member.now.at, std::move(order)})
        .then(
            [=, at = state.incarnation](training_opened& one) {
              if (self->state.incarnation != at) return;
              (*opened)[rank] = std::move(one);
              if (--*missing == 0) all_opened(self, *opened);
            },
            [=, at = state.incarnation, device = member.device,
             name = member.now.device](const caf::error& why) {
              if (self->state.incarnation == at) open_failed(self, device, name, from_caf(why));
            });
  }
}

bool could_take(const train_state& state, const shared_device& one) {
  return !state.left_out.contains(one.now.device) && !state.out_of_reach.contains(one.now.device);
}

bool any_gpu(const std::vector<shared_device>& devices) {
  return std::ranges::any_of(devices, [](const auto& one) { return one.gpu; });
}

// Of those that are up, as many as the job's slots can be dealt to: GPUs where there are any, since
// a group's bits are those of one kind of device, and the slowest sets the pace.
std::vector<shared_device> usable(const train_state& state, std::vector<shared_device> up) {
  std::erase_if(up, [&](const auto& one) { return !could_take(state, one); });
  if (any_gpu(up)) std::erase_if(up, [](const auto& one) { return !one.gpu; });
  if (!up.empty())
    up.resize(static_cast<std::size_t>(
        train::device_count_for(static_cast<int>(up.size()), state.plan.settings.slots)));
  return up;
}

// Whether these are worth the move: more of them, GPUs for the first time, or one that the job lies
// on is not to be used.
bool worth_moving(const train_state& state, const std::vector<shared_device>& up) {
  const auto better = usable(state, up);
  if (better.empty()) return false;
  const bool on_gpus =
      std::ranges::any_of(state.members, [](const auto& member) { return member.gpu; });
  if (any_gpu(better) && !on_gpus) return true;
  if (any_gpu(better) == on_gpus && better.size() > state.members.size()) return true;
  return !std::ranges::all_of(state.members, [&](const auto& member) {
    return std::ranges::any_of(up, [&](const auto& one) { return one.device == member.device; });
  });
}

void save_and_move(train_self self) {
  when_saved(self, [=] {
    save(self);
    when_saved(self, [=] { move(self); });
  });
}

void ask_what_is_up(train_self self, std::function<void(std::vector<shared_device>)> then) {
  auto& state = self->state;
  self->request(state.options.coordinator, lease_deadline,
                want_training{state.options.job, 0, self})
      .then(
          [=, at = state.incarnation](std::vector<shared_device>& up) {
            if (self->state.incarnation == at) then(std::move(up));
          },
          [=, at = state.incarnation](const caf::error& why) {
            if (self->state.incarnation == at) start_over(self, from_caf(why));
          });
}

}  // namespace

void borrow_devices(train_self self) {
  self->state.homes_changed = false;
  ask_what_is_up(self, [=](std::vector<shared_device> up) {
    auto& state = self->state;
    judge_suspects(self, up);
    state.members.clear();
    const auto could =
        std::ranges::count_if(up, [&](const auto& one) { return could_take(state, one); });
    for (auto& one : usable(state, std::move(up)))
      state.members.push_back({one.now, one.device, one.tenure, {}, one.gpu});
    state.has_others = could > std::ssize(state.members);
    state.members.empty() ? wait_for_devices(self) : open(self);
  });
}

// Nobody hears of it: devices that train go on doing so where the job lies again.
void move(train_self self) {
  auto& state = self->state;
  state.plan.trained_tokens = state.tokens_at_step;
  state.plan.checkpoint_names = state.checkpoint_names;
  close_job(self);
  borrow_devices(self);
}

void tell_resident(train_self self) {
  auto& state = self->state;
  job_resident resident{state.options.job, {}, state.bytes_each};
  for (const auto& member : state.members) resident.devices.push_back(member.now.device);
  self->send(state.options.coordinator, std::move(resident));
}

void give_up_work(train_self self) {
  auto& state = self->state;
  ++state.incarnation;
  state.saving = false;
  state.after_saved.clear();
  state.copying = 0;
  state.after_copied.clear();
  state.under_way = {};
  state.after_pause = nullptr;
}

void close_job(train_self self) {
  auto& state = self->state;
  give_up_work(self);
  for (const auto& member : state.members) {
    self->demonitor(member.device.address());
    self->request(member.device, open_deadline, close_training{member.now.at, state.options.job})
        .then([] {}, [](const caf::error&) {});
  }
  state.members.clear();
  state.group.clear();
  state.layout = {};
  state.whole = false;
  state.buddies.clear();
  state.copied_step.clear();
  state.gone.clear();
  state.rescued_from.reset();
  state.work.reset();
  state.leaving = false;
}

void free_devices(train_self self) {
  close_job(self);
  self->send(self->state.options.coordinator, return_devices{self->state.options.job});
}

void look_at_homes(train_self self, std::function<void()> stay) {
  if (!std::exchange(self->state.homes_changed, false)) return stay();
  ask_what_is_up(self, [=](const std::vector<shared_device>& up) {
    worth_moving(self->state, up) ? save_and_move(self) : stay();
  });
}

void move_if_stranded(train_self self) {
  auto& state = self->state;
  if (!state.homes_changed || state.wanted != train_state::wish::go_on || !is_stranded(state))
    return;
  ask_what_is_up(self, [=](const std::vector<shared_device>& up) {
    auto& now = self->state;
    if (!now.homes_changed || now.wanted != train_state::wish::go_on || !is_stranded(now)) return;
    now.homes_changed = false;
    if (!worth_moving(now, up)) return;
    now.leaving = true;
    save_and_move(self);
  });
}

}  // namespace tandem::actors
