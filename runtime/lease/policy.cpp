#include "runtime/lease/policy.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

namespace tandem::lease {
namespace {

constexpr std::array<std::string_view, 3> policy_names{"latency_first", "train_first", "fixed"};

// Shares of a target. A step up is taken above the higher, a step back below the lower, so that a
// load between them moves nothing.
constexpr double waiting_threatens = 0.5;
constexpr double ttft_threatens = 0.8;
constexpr double itl_threatens = 0.9;
constexpr double waiting_calm = 0.2;
constexpr double ttft_calm = 0.5;
// Training between steps gives way to prompts and keeps to the targets: it ends only so close to
// one.
constexpr double shared_breaks = 0.75;
constexpr double busy_most = 0.6;        // of the devices that would be left
constexpr double queue_threatens = 2.0;  // requests without a slot, a serving device
// The percentiles look back about a second: they judge a move only after that.
constexpr std::int64_t window_ms = 1000;
// A device that serves alone trains again beside it after so long without a threat: on a shared
// device training holds steps up only as far as targets allow.
constexpr std::int64_t share_again_ms = 300;
constexpr int cooldown_doublings_max = 2;
constexpr int settings_most = 1 << 20;

// A device on the ladder between training and serving.
int rung(role r) { return r == role::train ? 0 : r == role::shared ? 1 : 2; }
role role_at(int rung) {
  constexpr std::array<role, 3> ladder{role::train, role::shared, role::serve};
  return ladder[static_cast<std::size_t>(rung)];
}

int count_of(const cluster_view& view, int device_view::*what) {
  int sum = 0;
  for (const auto& d : view.devices) sum += d.*what;
  return sum;
}

int serving_devices(const cluster_view& view) {
  return static_cast<int>(std::count_if(view.devices.begin(), view.devices.end(),
                                        [](const auto& d) { return serves(d.held_as); }));
}

// The worst of what serving is measured by, as a share of what is allowed.
struct strain {
  double share = 0.0;     // above 1: a threat
  double of_whole = 0.0;  // of the target itself
  bool leading = false;   // known now, not over the last window
  std::string why;
};

strain worst_of(const policy_settings& settings, const cluster_view& view) {
  strain worst;
  const auto look = [&](double value, double target, double threatens, bool leading, auto say) {
    const double share = value / target / threatens;
    if (share > worst.share) worst = {share, value / target, leading, say()};
  };
  const auto& service = view.service;
  look(service.waiting_ms, settings.ttft_target_ms, waiting_threatens, true, [&] {
    return fmt::format("the oldest request waits {:.0f} ms, target {} ms", service.waiting_ms,
                       settings.ttft_target_ms);
  });
  look(service.ttft_ms, settings.ttft_target_ms, ttft_threatens, false, [&] {
    return fmt::format("95 of 100 first tokens take up to {:.0f} ms, target {} ms", service.ttft_ms,
                       settings.ttft_target_ms);
  });
  look(service.itl_ms, settings.itl_target_ms, itl_threatens, false, [&] {
    return fmt::format("95 of 100 tokens come up to {:.0f} ms after the one before, target {} ms",
                       service.itl_ms, settings.itl_target_ms);
  });
  const int queued = count_of(view, &device_view::queued);
  const int serving = std::max(1, serving_devices(view));
  look(queued, serving * queue_threatens, 1.0, true, [&] {
    return fmt::format("{} requests have no slot on {} serving device{}", queued, serving,
                       serving == 1 ? "" : "s");
  });
  return worst;
}

numbers numbers_of(const policy_settings& settings, const cluster_view& view) {
  return {{"waiting_ms", view.service.waiting_ms},
          {"ttft_ms", view.service.ttft_ms},
          {"ttft_target_ms", settings.ttft_target_ms},
          {"itl_ms", view.service.itl_ms},
          {"itl_target_ms", settings.itl_target_ms},
          {"running", count_of(view, &device_view::running)},
          {"queued", count_of(view, &device_view::queued)},
          {"serving_devices", serving_devices(view)},
          {"min_serve_devices", settings.min_serve_devices},
          {"max_train_devices", settings.max_train_devices}};
}

// One decision in the making: what each device is wanted as, and why.
class decision {
 public:
  decision(const policy_settings& settings, const cluster_view& view)
      : settings_(settings), view_(view), wishes_(view.devices.size()) {
    for (std::size_t i = 0; i < wishes_.size(); ++i)
      wishes_[i] = {view.devices[i].name, role::serve, "", {}};
    train_room_ = settings.max_train_devices > 0 ? settings.max_train_devices
                                                 : static_cast<int>(wishes_.size());
  }

  std::vector<wish> make() && {
    settle_the_bound();
    if (!view_.training.job.empty()) follow_the_policy();
    give_numbers();
    return std::move(wishes_);
  }

 private:
  using index = std::size_t;

  void follow_the_policy() {
    switch (settings_.kind) {
      case policy_kind::latency_first:
        follow_the_load();
        break;
      case policy_kind::train_first:
        take_floor("train_first: all but the fewest serving devices train");
        break;
      case policy_kind::fixed:
        take_floor("fixed: the split does not follow the load");
        break;
    }
  }
  // Most devices stay as they are, at every look.
  void give_numbers() {
    numbers given;
    for (index i = 0; i < wishes_.size(); ++i) {
      if (wishes_[i].as == device(i).held_as) continue;
      if (given.empty()) given = numbers_of(settings_, view_);
      wishes_[i].given = given;
    }
  }

  void want(index i, role as, std::string why) {
    wishes_[i].as = as;
    wishes_[i].why = std::move(why);
  }
  const device_view& device(index i) const { return view_.devices[i]; }

  // Those that nobody has to think about: pinned, without the job, or all when there is none.
  void settle_the_bound() {
    int may_leave = static_cast<int>(wishes_.size()) - settings_.min_serve_devices;
    const auto& job = view_.training.job;
    const auto not_here = job.empty() ? std::string("no job wants to train")
                                      : fmt::format("{} is not open here", job);
    for (index i = 0; i < wishes_.size(); ++i) {
      const auto& d = device(i);
      const auto pin = d.pin.value_or(role::idle);
      if (job.empty() || !d.resident) {
        want(i, role::serve, not_here);
        if (pin != role::idle && pin != role::serve)
          wishes_[i].why += fmt::format(", so it cannot {} as ordered by hand",
                                        pin == role::train ? "train" : "be shared");
        continue;
      }
      if (pin == role::idle) {
        free_.push_back(i);
        continue;
      }
      const auto by_hand = fmt::format("ordered by hand to {}", name_of(pin));
      if (pin == role::serve) {
        want(i, role::serve, by_hand);
      } else if (train_room_ == 0) {
        want(i, role::serve,
             fmt::format("{}, but at most {} may train", by_hand, settings_.max_train_devices));
        continue;
      } else if (pin == role::train && may_leave <= 0) {
        want(i, role::shared,
             fmt::format("{}, but {} of {} devices must serve", by_hand,
                         settings_.min_serve_devices, wishes_.size()));
        --train_room_;
      } else {
        want(i, pin, by_hand);
        --train_room_;
        if (pin == role::train) --may_leave;
      }
    }
    int serving = 0;
    for (const auto& w : wishes_) serving += serves(w.as);
    serving -= static_cast<int>(free_.size());  // which stand as serving so far
    must_serve_ =
        std::clamp(settings_.min_serve_devices - serving, 0, static_cast<int>(free_.size()));
    find_floor();
  }

  // The lowest rung of each free device: what it is while nobody asks anything. Those that train
  // already, and then those with the fewest sequences, train first, so that nobody moves in vain.
  void find_floor() {
    auto order = free_;
    const auto load = [&](index i) { return device(i).running + device(i).queued; };
    std::sort(order.begin(), order.end(), [&](index a, index b) {
      const int rung_a = rung(device(a).held_as), rung_b = rung(device(b).held_as);
      if (rung_a != rung_b) return rung_a < rung_b;
      if (load(a) != load(b)) return load(a) < load(b);
      return a > b;
    });
    floor_.assign(wishes_.size(), 2);
    const auto alone = static_cast<int>(order.size()) - must_serve_;
    const bool dedicated = settings_.kind == policy_kind::fixed && alone > 0;
    for (int at = 0; at < static_cast<int>(order.size()); ++at) {
      const index i = order[static_cast<std::size_t>(at)];
      if (train_room_ == 0) break;
      if (at >= alone && dedicated) break;
      floor_[i] = at < alone ? 0 : 1;
      --train_room_;
    }
  }

  std::string floor_reason(index i) const {
    if (floor_[i] == 0) return fmt::format("{} trains", view_.training.job);
    if (floor_[i] == 1)
      return fmt::format("{} trains between steps; {} of {} devices must serve", view_.training.job,
                         settings_.min_serve_devices, wishes_.size());
    if (settings_.max_train_devices > 0)
      return fmt::format("at most {} may train, {} of {} devices must serve",
                         settings_.max_train_devices, settings_.min_serve_devices, wishes_.size());
    return fmt::format("{} of {} devices must serve", settings_.min_serve_devices, wishes_.size());
  }

  void take_floor(std::string_view why) {
    for (const index i : free_)
      want(i, role_at(floor_[i]), fmt::format("{}; {}", why, floor_reason(i)));
  }

  void follow_the_load() {
    const auto worst = worst_of(settings_, view_);
    // Never below the floor, whatever else.
    bool raised = false;
    for (const index i : free_) {
      const int now = rung(device(i).held_as);
      const int least = floor_[i];
      want(i, role_at(std::max(now, least)), now < least ? floor_reason(i) : stays(worst));
      raised = raised || now < least;
    }
    if (worst.share >= 1.0) return step_up(worst);
    if (!raised && !share_again(worst)) step_back(worst);
  }

  std::string stays(const strain& worst) const {
    if (worst.why.empty()) return "no requests";
    return worst.why;
  }

  std::int64_t last_change_ms() const {
    std::int64_t last = 0;
    for (const auto& d : view_.devices) last = std::max(last, d.since_ms);
    return last;
  }

  // Towards serving: those that train alone first, which costs training least; a threat that grows
  // takes more at a time.
  void step_up(const strain& worst) {
    if (!worst.leading && view_.now_ms - last_change_ms() < window_ms) return;
    std::vector<index> candidates;
    for (int from = 0; from < 2 && candidates.empty(); ++from)
      for (const index i : free_)
        if (rung(wishes_[i].as) == from) candidates.push_back(i);
    // The last one to train between steps does so until others serve alone: a sole device always.
    if (wishes_.size() == 1) return;
    if (!candidates.empty() && rung(wishes_[candidates.front()].as) == 1 &&
        worst.of_whole < shared_breaks)
      return;
    std::stable_sort(candidates.begin(), candidates.end(), [&](index a, index b) {
      return device(a).running + device(a).queued > device(b).running + device(b).queued;
    });
    const auto count = candidates.size();
    const auto taken = worst.of_whole >= 2.0 ? count : worst.of_whole >= 1.0 ? (count + 1) / 2 : 1;
    for (std::size_t at = 0; at < std::min(taken, count); ++at) {
      const index i = candidates[at];
      want(i, role_at(rung(wishes_[i].as) + 1), worst.why);
    }
  }

  // From serving alone to training between the steps: all at once.
  bool share_again(const strain& worst) {
    if (view_.safe_since_ms < 0 || view_.now_ms - view_.safe_since_ms < share_again_ms)
      return false;
    const auto alone = quietest_first(2);
    for (const index i : alone)
      want(i, role::shared,
           fmt::format("no target has been threatened for {} ms ({}); {}",
                       view_.now_ms - view_.safe_since_ms, stays(worst), floor_reason(i)));
    return !alone.empty();
  }

  // From there to training alone, one device at a time, once load has been low for long enough and
  // would stay so with a device less.
  void step_back(const strain& worst) {
    const std::int64_t cooldown = std::int64_t{settings_.cooldown_ms}
                                  << std::clamp(view_.regrets, 0, cooldown_doublings_max);
    if (view_.calm_since_ms < 0 || view_.now_ms - view_.calm_since_ms < cooldown) return;
    const bool idle = view_.service.requests == 0 && count_of(view_, &device_view::running) == 0;
    if (!idle && view_.now_ms - last_change_ms() < std::min<std::int64_t>(cooldown, window_ms))
      return;
    if (!fits_on_fewer()) return;
    for (const index i : quietest_first(1))
      return want(
          i, role::train,
          fmt::format("load has been low for {} ms ({}, serving devices busy for {:.0f} %); "
                      "{}",
                      view_.now_ms - view_.calm_since_ms, stays(worst),
                      100 * busy() / std::max(1, serving_devices(view_)), floor_reason(i)));
  }

  double busy() const {
    double sum = 0.0;
    for (const auto& d : view_.devices) sum += serves(d.held_as) ? d.busy : 0.0;
    return sum;
  }

  // Free devices on this rung that may stand lower.
  std::vector<index> quietest_first(int on) const {
    std::vector<index> found;
    for (const index i : free_)
      if (rung(wishes_[i].as) == on && floor_[i] < on) found.push_back(i);
    std::stable_sort(found.begin(), found.end(), [&](index a, index b) {
      const int load_a = device(a).running + device(a).queued;
      const int load_b = device(b).running + device(b).queued;
      return load_a != load_b ? load_a < load_b : a > b;
    });
    return found;
  }

  // At worst the wait for a first token grows as the sequences a device has; of the time between
  // tokens training takes what the target leaves, so it says nothing here.
  bool fits_on_fewer() const {
    const int serving = serving_devices(view_);
    if (serving < 2 || busy() > busy_most * (serving - 1)) return false;
    const double grows = static_cast<double>(serving) / (serving - 1);
    return view_.service.ttft_ms * grows < ttft_threatens * settings_.ttft_target_ms;
  }

  const policy_settings& settings_;
  const cluster_view& view_;
  std::vector<wish> wishes_;
  std::vector<index> free_;  // that policy decides about
  std::vector<int> floor_;   // by device: the lowest rung
  int must_serve_ = 0;       // of the free ones
  int train_room_ = 0;       // how many more may train or share
};

error no_such_device(const cluster_view& view, std::string_view device) {
  std::vector<std::string> names;
  for (const auto& d : view.devices) names.push_back(d.name);
  return {errc::not_found,
          names.empty()
              ? fmt::format("no device '{}': none is up", device)
              : fmt::format("no device '{}': there is {}", device, fmt::join(names, ", ")),
          "device"};
}

}  // namespace

std::string_view name_of(policy_kind kind) { return policy_names[static_cast<std::size_t>(kind)]; }

std::optional<policy_kind> policy_from(std::string_view name) {
  const auto it = std::find(policy_names.begin(), policy_names.end(), name);
  if (it == policy_names.end()) return std::nullopt;
  return static_cast<policy_kind>(it - policy_names.begin());
}

pressure pressure_of(const policy_settings& settings, const cluster_view& view) {
  const auto& service = view.service;
  if (worst_of(settings, view).share >= 1.0) return pressure::threatened;
  const bool calm = service.waiting_ms <= waiting_calm * settings.ttft_target_ms &&
                    service.ttft_ms <= ttft_calm * settings.ttft_target_ms &&
                    count_of(view, &device_view::queued) == 0;
  return calm ? pressure::calm : pressure::steady;
}

std::vector<wish> decide(const policy_settings& settings, const cluster_view& view) {
  return decision(settings, view).make();
}

result<void> check_policy(const policy_settings& settings) {
  const auto refuse = [](std::string_view field, int given, int least, int most) {
    return error{errc::bad_request,
                 fmt::format("{}: {} is out of range: give {} to {}", field, given, least, most),
                 std::string(field)};
  };
  const auto within = [](int value, int least, int most) {
    return value >= least && value <= most;
  };
  constexpr int hour_ms = 3'600'000;
  if (!within(settings.min_serve_devices, 1, settings_most))
    return refuse("min_serve_devices", settings.min_serve_devices, 1, settings_most);
  if (!within(settings.max_train_devices, 0, settings_most))
    return refuse("max_train_devices", settings.max_train_devices, 0, settings_most);
  if (!within(settings.cooldown_ms, 0, hour_ms))
    return refuse("cooldown_ms", settings.cooldown_ms, 0, hour_ms);
  if (!within(settings.ttft_target_ms, 1, hour_ms))
    return refuse("ttft_target_ms", settings.ttft_target_ms, 1, hour_ms);
  if (!within(settings.itl_target_ms, 1, hour_ms))
    return refuse("itl_target_ms", settings.itl_target_ms, 1, hour_ms);
  return {};
}

result<void> check_pin(const policy_settings& settings, const cluster_view& view,
                       std::string_view device, std::optional<role> as) {
  const auto found = std::find_if(view.devices.begin(), view.devices.end(),
                                  [&](const auto& d) { return d.name == device; });
  if (found == view.devices.end()) return no_such_device(view, device);
  if (!as) return {};
  if (*as == role::idle)
    return error{errc::bad_request,
                 "a device serves, trains or is shared: give serve, train, shared "
                 "or auto",
                 "role"};
  if (!trains(*as)) return {};
  const auto& job = view.training.job;
  if (job.empty())
    return error{errc::conflict,
                 fmt::format("no job wants to train, so {} cannot {}: start one, or give serve or "
                             "auto",
                             device, *as == role::train ? "train" : "be shared"),
                 "role"};
  std::vector<std::string> homes;
  for (const auto& d : view.devices)
    if (d.resident) homes.push_back(d.name);
  if (!found->resident)
    return error{errc::conflict,
                 fmt::format("{} is not open on {}: it can train on {}", job, device,
                             fmt::join(homes, ", ")),
                 "device"};
  std::vector<std::string> to_train, to_have;  // by hand, this one not counted
  for (const auto& d : view.devices) {
    if (d.name == device || !d.pin || !d.resident) continue;
    if (*d.pin == role::train) to_train.push_back(d.name);
    if (trains(*d.pin)) to_have.push_back(d.name);
  }
  const int may_leave = static_cast<int>(view.devices.size()) - settings.min_serve_devices;
  if (*as == role::train && static_cast<int>(to_train.size()) + 1 > may_leave) {
    const auto others = to_train.empty() ? std::string()
                                         : fmt::format(" ({} ordered to train already: {})",
                                                       to_train.size(), fmt::join(to_train, ", "));
    return error{errc::conflict,
                 fmt::format("{} of {} device{} must serve (min_serve_devices), so at most {} may "
                             "train alone{}: give shared, or send another one back first",
                             settings.min_serve_devices, view.devices.size(),
                             view.devices.size() == 1 ? "" : "s", std::max(0, may_leave), others),
                 "role"};
  }
  if (settings.max_train_devices > 0 &&
      static_cast<int>(to_have.size()) + 1 > settings.max_train_devices)
    return error{errc::conflict,
                 fmt::format("at most {} may train or share (max_train_devices), and {} ordered so "
                             "already: {}; send one back first, or give serve",
                             settings.max_train_devices,
                             to_have.size() == 1 ? "1 is" : fmt::format("{} are", to_have.size()),
                             fmt::join(to_have, ", ")),
                 "role"};
  return {};
}

}  // namespace tandem::lease
