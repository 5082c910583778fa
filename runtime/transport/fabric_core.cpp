#include "runtime/transport/fabric_core.hpp"

#include "runtime/log.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tandem::transport {

namespace {

using namespace std::chrono_literals;

constexpr auto look_at_lanes_every = 500us;
// With frames under way; then naps, the longer the longer none moves.
constexpr auto spin_in_transit = 500us;
constexpr auto first_nap = 50us;
constexpr auto longest_nap = 1ms;
constexpr int looks_before_nap = 8;
constexpr auto leaving_takes_at_most = 1s;
// Of a frame beside its bytes: ours, and what UCX keeps of it.
constexpr std::uint64_t frame_costs = 512;

}  // namespace

result<std::unique_ptr<fabric_core>> fabric_core::open(fabric_options options,
                                                       fabric_events& events) {
  auto made = std::unique_ptr<fabric_core>(new fabric_core(std::move(options), events));
  if (auto started = made->start(); !started) return started.error();
  return made;
}

fabric_core::fabric_core(fabric_options options, fabric_events& events)
    : options_(std::move(options)),
      events_(events),
      spin_(options_.block ? steady::duration::zero() : steady::duration(options_.spin)),
      tick_(std::clamp<steady::duration>(options_.silent_after / 6, 5ms, 500ms)) {}

result<void> fabric_core::start() {
  auto where = address::parse(options_.listen);
  if (!where) return where.error();
  if (auto trusted = check_trust(*where, options_.secret); !trusted) return trusted.error();
  for (const auto& name : {options_.cluster, options_.build})
    if (!is_name(name))
      return error{errc::bad_request,
                   fmt::format("names of clusters and builds have up to {} printable characters",
                               max_name_bytes),
                   "cluster"};
  auto listener = listen_on(*where);
  if (!listener) return listener.error();
  listener_ = *std::move(listener);
  const address bound = bound_address(listener_);
  own_.self.listen = bound;
  if (!options_.advertise.empty()) {
    auto advertised = address::parse(options_.advertise);
    if (!advertised) return advertised.error();
    own_.self.listen = *advertised;
    if (advertised->port == 0) own_.self.listen.port = bound.port;
  } else if (bound.is_any()) {
    return error{errc::bad_request,
                 fmt::format("{} is every interface: say which address others dial (advertise)",
                             bound.to_string()),
                 "advertise"};
  }
  const nonce life = fresh_nonce();
  std::memcpy(&own_.self.incarnation, life.data(), sizeof own_.self.incarnation);
  own_.build = options_.build;
  own_.cluster = options_.cluster;
  own_.secret = options_.secret;
  if (auto lanes = start_lanes(); !lanes) return lanes.error();
  thread_ = std::thread([this] { run(); });
  return {};
}

result<void> fabric_core::start_lanes() {
  const bool one_host = own_.self.listen.is_loopback();
  // On one host no port of UCX's own is opened.
  ucx_settings ucx{options_.transports, options_.devices};
  if (ucx.transports.empty()) ucx.transports = one_host ? "posix,self" : "posix,self,tcp";
  if (ucx.devices.empty()) {
    auto interface = interface_of(bound_address(listener_));
    if (!interface) return interface.error();
    ucx.devices = *interface;
  }
  auto context = ucx_context::open(ucx);
  if (!context) return context.error();
  context_ = *std::move(context);
  pool_ = buffer_pool::make(context_, options_.pool_bytes);
  pool_->on_release([this] {
    if (!needs_memory_.load() || memory_back_.exchange(true)) return;
    ring();
  });
  hooks_.accepts = [this](connection& on) {
    if (on.who) return true;
    on.shake->heard_frame();
    return come_up(on);
  };
  hooks_.arrived = [this](connection& on, std::span<const char> body,
                          std::vector<buffer_ptr> with) {
    on.heard = last_tick_;
    events_.frame_arrived(on.who, body, std::move(with));
  };
  // Tried once more at once: some may have come back before anybody was told to say so.
  hooks_.needs_memory = [this] {
    needs_memory_.store(true);
    memory_back_.store(true);
  };
  // So that what is missing is known now, not when the first peer comes.
  if (auto tried = data_lane::open(context_, pool_, options_, hooks_); !tried) return tried.error();

  epoll_ = file_descriptor(epoll_create1(EPOLL_CLOEXEC));
  bell_ = file_descriptor(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!epoll_ || !bell_)
    return error{errc::io, fmt::format("no descriptors: {}", std::strerror(errno)), ""};
  watch(&bell_, bell_.get(), EPOLLIN, EPOLL_CTL_ADD);
  watch(&listener_, listener_.get(), EPOLLIN, EPOLL_CTL_ADD);
  last_tick_ = steady::now();
  return {};
}

fabric_core::~fabric_core() {
  close("shut down");
  if (pool_) pool_->on_release({});
}

void fabric_core::close(std::string reason) {
  if (!thread_.joinable()) return;
  ensure(std::this_thread::get_id() != thread_.get_id(), "a fabric is closed by another thread");
  push(std::function<void()>([this, reason = std::move(reason)] {
    closing_ = true;
    farewell_ = reason;
  }));
  thread_.join();
}

fabric_counts fabric_core::counts() const {
  return {refused_joins_, dropped_joins_, unknown_frames_, half_open_, peers_};
}

// --- from other threads -------------------------------------------------------------------------

void fabric_core::ring() {
  if (!sleeping_.exchange(false)) return;
  const std::uint64_t one = 1;
  // It cannot be full, and a bell that rings already is enough.
  if (write(bell_.get(), &one, sizeof one) < 0) return;
}

// False: closed.
bool fabric_core::push(command what) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return false;
    queue_.push_back(std::move(what));
    queued_.store(true);
  }
  ring();
  return true;
}

void fabric_core::dial(const address& where, std::function<void(result<peer_ptr>)> done) {
  const auto shared = std::make_shared<std::function<void(result<peer_ptr>)>>(std::move(done));
  const bool queued =
      push(std::function<void()>([this, where, shared] { start_dial(where, std::move(*shared)); }));
  // There is no progress thread any more to call it.
  if (!queued) (*shared)(error{errc::unavailable, "this node shuts down", ""});
}

void fabric_core::post(std::function<void()> call) { (void)push(std::move(call)); }

result<void> fabric_core::check_size(std::size_t body_bytes,
                                     std::span<const buffer_ptr> attachments) const {
  std::uint64_t tensors = 0;
  for (const auto& one : attachments) tensors += one->size();
  if (body_bytes <= options_.message_bytes_max && tensors <= options_.tensor_bytes_max &&
      attachments.size() <= max_attachments)
    return {};
  return error{errc::too_large,
               fmt::format("a message of {} bytes with {} tensors of {} bytes; {}, {} and {} are "
                           "allowed",
                           body_bytes, attachments.size(), tensors, options_.message_bytes_max,
                           max_attachments, options_.tensor_bytes_max),
               ""};
}

result<void> fabric_core::send(const peer_ptr& to, bytes body, std::vector<buffer_ptr> attachments,
                               bool must_go) {
  if (to->gone())
    return error{errc::unavailable, fmt::format("{} is gone", to->node().to_string()), ""};
  if (auto fits = check_size(body.size(), attachments); !fits) return fits;
  std::uint64_t charged = body.size() + frame_costs;
  for (const auto& one : attachments) charged += one->size();
  const std::uint64_t window = options_.window_bytes * (must_go ? 2 : 1);
  const std::uint64_t before = to->in_flight_.fetch_add(charged);
  // One frame may be larger than the window, alone.
  if (before > 0 && before + charged > window) {
    to->in_flight_.fetch_sub(charged);
    if (must_go) drop(to, fmt::format("{} bytes for it are unsent, it takes none", before));
    return error{errc::overloaded,
                 fmt::format("{} of {} bytes for {} are unsent: {} more do not fit", before,
                             options_.window_bytes, to->node().to_string(), charged),
                 ""};
  }
  outgoing frame;
  frame.body = std::move(body);
  frame.attachments = std::move(attachments);
  frame.to = to;
  frame.charged = charged;
  if (push(std::move(frame))) return {};
  to->in_flight_.fetch_sub(charged);
  return error{errc::unavailable, "this node shuts down", ""};
}

void fabric_core::drop(const peer_ptr& who, std::string reason) {
  post([who, reason = std::move(reason)] {
    if (who->connection_ == nullptr) return;
    static_cast<connection*>(who->connection_)->fail({errc::unavailable, reason, ""});
  });
}

// --- the loop -----------------------------------------------------------------------------------

void fabric_core::run() {
  prctl(PR_SET_TIMERSLACK, 1);  // naps are short
  auto busy_at = steady::now();
  auto began = busy_at;  // this turn
  auto lanes_at = busy_at;
  while (!closing_) {
    bool busy = run_commands();
    for (int i = 0; i < 8 && progress(); ++i) busy = true;
    if (memory_back_.exchange(false)) needs_memory_.store(retry_memory());
    if (reap_due_) reap();
    const auto now = steady::now();
    if (now - lanes_at > look_at_lanes_every) {
      lanes_at = now;
      poll_lanes(0);
    }
    if (now - last_tick_ >= tick_) keep_time(now);
    if (busy) {
      spin_.worked_after(began - busy_at);
      naps_ = -looks_before_nap;
      began = busy_at = now;
      continue;
    }
    const auto sure = in_transit() ? spin_in_transit : steady::duration::zero();
    if (spin_.open(now, now - busy_at, sure)) {
      sched_yield();
      began = steady::now();
      spin_.yielded(began, began - now);
    } else {
      if (sleep()) lanes_at = steady::now();
      began = steady::now();
    }
  }
  leave();
}

bool fabric_core::run_commands() {
  if (!queued_.load()) return false;
  {
    const std::lock_guard lock(mutex_);
    queued_.store(false);
    running_.swap(queue_);
  }
  for (auto& one : running_) {
    if (auto* call = std::get_if<std::function<void()>>(&one)) {
      (*call)();
      continue;
    }
    auto& frame = std::get<outgoing>(one);
    auto* to = static_cast<connection*>(frame.to->connection_);
    if (to != nullptr && !to->failed)
      to->data->send(std::move(frame));
    else
      frame.to->in_flight_.fetch_sub(frame.charged);
  }
  running_.clear();
  return true;
}

// --- data lanes ---------------------------------------------------------------------------------

// What the peer is told, so that it can reach it.
result<bytes> fabric_core::open_data_lane(connection& on) {
  auto opened = data_lane::open(context_, pool_, options_, hooks_);
  if (!opened) return opened.error();
  on.data = *std::move(opened);
  lanes_.push_back(on.data.get());
  watch(&lanes_, on.data->event_fd(), EPOLLIN, EPOLL_CTL_ADD);
  return on.data->worker_address();
}

void fabric_core::give_up_lane(connection& on) {
  if (!on.data) return;
  on.data->disconnect();
  std::erase(lanes_, on.data.get());
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, on.data->event_fd(), nullptr);
  unknown_before_ += on.data->unknown_frames();
  given_up_.push_back(std::move(on.data));
}

void fabric_core::settle_given_up(steady::time_point now) {
  for (auto it = given_up_.begin(); it != given_up_.end();) {
    if (!(*it)->settle(now)) {
      ++it;
      continue;
    }
    if (!(*it)->clean()) unfinished_.push_back(std::move(*it));
    it = given_up_.erase(it);
  }
}

bool fabric_core::progress() {
  bool busy = false;
  for (auto* lane : lanes_) busy = lane->progress() || busy;
  return busy;
}

bool fabric_core::arm() {
  return std::ranges::all_of(lanes_, [](auto* lane) { return lane->arm(); });
}

bool fabric_core::in_transit() const {
  return std::ranges::any_of(lanes_, [](auto* lane) { return lane->in_transit(); });
}

bool fabric_core::retry_memory() {
  bool some_wait = false;
  for (auto* lane : lanes_) some_wait = lane->retry_memory() || some_wait;
  return some_wait;
}

// False when there was something to do first.
bool fabric_core::sleep() {
  sleeping_.store(true);
  if (queued_.load() || memory_back_.load()) {
    sleeping_.store(false);
    return false;
  }
  if (!arm()) {
    // Mostly something came meanwhile: look again. Or frames wait until their receiver has room, of
    // which no event tells.
    if (++naps_ > 0) nap(std::min<steady::duration>(first_nap * naps_, longest_nap));
    sleeping_.store(false);
    return false;
  }
  const bool timed = !connections_.empty() || accept_paused_ || !given_up_.empty();
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(last_tick_ + tick_ - steady::now());
  poll_lanes(timed ? static_cast<int>(std::max<std::int64_t>(left.count(), 0)) : -1);
  sleeping_.store(false);
  if (!timed) last_tick_ = steady::now();  // nobody was waited for
  return true;
}

// Only the bell ends it early. Who sleeps gets the core back sooner than who yields.
void fabric_core::nap(steady::duration most) {
  pollfd bell{bell_.get(), POLLIN, 0};
  const timespec wait{
      0, static_cast<long>(std::chrono::duration_cast<std::chrono::nanoseconds>(most).count())};
  std::uint64_t rings = 0;
  if (ppoll(&bell, 1, &wait, nullptr) > 0 && read(bell_.get(), &rings, sizeof rings) < 0) return;
}

// Frames first, then the farewell that counts them, then time for the others to read both.
void fabric_core::leave() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    queued_.store(true);
  }
  run_commands();
  const auto until = steady::now() + leaving_takes_at_most;
  std::vector<connection*> up;
  // To the other side one may be up that has only proven itself here.
  for (const auto& one : connections_)
    if ((one->who || one->proven()) && !one->failed) up.push_back(one.get());
  for (auto* one : up)
    if (one->data) one->data->begin_flush();
  const auto flushed = [](auto* one) { return !one->data || one->data->flushed(); };
  while (!std::ranges::all_of(up, flushed) && steady::now() < until) progress();
  for (auto* one : up) {
    const auto said = one->lane.send(
        encode_record(record_kind::bye, encode_body(bye{one->frames_out, farewell_})));
    if (!said) one->fail(said.error());
  }
  while (steady::now() < until && std::ranges::any_of(up, [](auto* one) { return !one->failed; })) {
    if (!progress()) nap(first_nap);
    for (auto* one : up)
      if (auto got = one->lane.receive(); !got)
        one->fail(got.error());
      else
        for (auto next = one->lane.next(); next && *next;) next = one->lane.next();
  }
  for (auto it = connections_.begin(); it != connections_.end();) {
    give_up_lane(**it);
    if ((*it)->who) {
      (*it)->who->gone_ = true;
      (*it)->who->connection_ = nullptr;
    }
    for (const auto& done : std::exchange((*it)->awaited_by, {}))
      done(error{errc::unavailable, "this node shuts down", ""});
    it = connections_.erase(it);
  }
  const auto settled_by = steady::now() + leaving_takes_at_most;
  while (!given_up_.empty() && steady::now() < settled_by) settle_given_up(steady::now());
  given_up_.clear();
  unfinished_.clear();
}

}  // namespace tandem::transport
