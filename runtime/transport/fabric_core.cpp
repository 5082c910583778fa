#include "runtime/transport/fabric_core.hpp"

#include "runtime/log.hpp"

#include <fmt/format.h>
#include <openssl/rand.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tandem::transport {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t max_unsent_control = 64 << 10;
constexpr auto look_at_lanes_every = 500us;
constexpr auto nap = 50us;
constexpr auto yield_takes_at_most = 300us;
constexpr auto spin_rests_first = 20ms;
constexpr auto spin_rests_at_most = 2s;
constexpr auto leaving_takes_at_most = 300ms;
constexpr auto last_frames_take_at_most = 200ms;

nonce random_nonce() {
  nonce made{};
  const int rc = RAND_bytes(made.data(), static_cast<int>(made.size()));
  ensure(rc == 1, "the system has random numbers");
  return made;
}

std::string seconds(steady::duration d) {
  return fmt::format("{:.1f} s", std::chrono::duration<double>(d).count());
}

void watch_fd(int epoll, int fd, void* as, std::uint32_t events, int how) {
  epoll_event e{};
  e.events = events;
  e.data.ptr = as;
  epoll_ctl(epoll, how, fd, &e);
}

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
      spin_rest_(spin_rests_first),
      tick_(std::clamp<steady::duration>(options_.silent_after / 6, 5ms, 500ms)) {}

result<void> fabric_core::start() {
  auto where = address::parse(options_.listen);
  if (!where) return where.error();
  if (auto trusted = check_trust(*where, options_.secret); !trusted) return trusted.error();
  if (options_.cluster.size() > max_name_bytes || options_.build.size() > max_name_bytes)
    return error{
        errc::bad_request,
        fmt::format("names of clusters and builds have up to {} characters", max_name_bytes),
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
  const nonce life = random_nonce();
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
    if (memory_back_.exchange(true)) return;
    ring();
  });
  endpoint_set::hooks hooks;
  hooks.accepts = [this](connection& on) {
    if (on.who) return true;
    on.shake->heard_frame();
    return come_up(on);
  };
  hooks.arrived = [this](connection& on, std::span<const char> body, std::vector<buffer_ptr> with) {
    on.heard = last_tick_;
    events_.frame_arrived(on.who, body, std::move(with));
  };
  auto endpoints = endpoint_set::open(context_, pool_, options_, std::move(hooks));
  if (!endpoints) return endpoints.error();
  endpoints_ = *std::move(endpoints);
  own_.worker_address = endpoints_->worker_address();

  epoll_ = file_descriptor(epoll_create1(EPOLL_CLOEXEC));
  bell_ = file_descriptor(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!epoll_ || !bell_)
    return error{errc::io, fmt::format("no descriptors: {}", std::strerror(errno)), ""};
  watch_fd(epoll_.get(), bell_.get(), &bell_, EPOLLIN, EPOLL_CTL_ADD);
  watch_fd(epoll_.get(), listener_.get(), &listener_, EPOLLIN, EPOLL_CTL_ADD);
  watch_fd(epoll_.get(), endpoints_->event_fd(), &endpoints_, EPOLLIN, EPOLL_CTL_ADD);
  last_tick_ = steady::now();
  return {};
}

fabric_core::~fabric_core() {
  close("shut down");
  if (pool_) pool_->on_release({});
}

void fabric_core::close(std::string reason) {
  if (!thread_.joinable()) return;
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

void fabric_core::push(command what) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    queue_.push_back(std::move(what));
    queued_.store(true);
  }
  ring();
}

void fabric_core::dial(const address& where, std::function<void(result<peer_ptr>)> done) {
  post([this, where, done = std::move(done)]() mutable { start_dial(where, std::move(done)); });
}

void fabric_core::post(std::function<void()> call) { push(std::move(call)); }

result<void> fabric_core::send(const peer_ptr& to, bytes body, std::vector<buffer_ptr> attachments,
                               bool must_go) {
  if (to->gone())
    return error{errc::unavailable, fmt::format("{} is gone", to->node().to_string()), ""};
  std::uint64_t tensors = 0;
  for (const auto& one : attachments) tensors += one->size();
  if (body.size() > options_.message_bytes_max || tensors > options_.tensor_bytes_max ||
      attachments.size() > max_attachments)
    return error{errc::too_large,
                 fmt::format("a message of {} bytes with {} tensors of {} bytes; {}, {} and {} are "
                             "allowed",
                             body.size(), attachments.size(), tensors, options_.message_bytes_max,
                             max_attachments, options_.tensor_bytes_max),
                 ""};
  const std::uint64_t charged = body.size() + tensors + frame_header_bytes;
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
  push(std::move(frame));
  return {};
}

void fabric_core::drop(const peer_ptr& who, std::string reason) {
  post([who, reason = std::move(reason)] {
    if (who->connection_ == nullptr) return;
    static_cast<connection*>(who->connection_)->fail({errc::unavailable, reason, ""});
  });
}

// --- the loop -----------------------------------------------------------------------------------

void fabric_core::run() {
  auto busy_at = steady::now();
  auto lanes_at = busy_at;
  while (!closing_) {
    bool busy = run_commands();
    for (int i = 0; i < 8 && endpoints_->progress(); ++i) busy = true;
    if (memory_back_.exchange(false)) endpoints_->retry_memory();
    reap();
    const auto now = steady::now();
    if (now - lanes_at > look_at_lanes_every) {
      lanes_at = now;
      poll_lanes(0);
    }
    if (now - last_tick_ >= tick_) keep_time(now);
    if (busy) {
      busy_at = now;
    } else if (!options_.block && now - busy_at < options_.spin && now >= spin_again_) {
      yield(now);
    } else {
      if (sleep()) lanes_at = steady::now();
      busy_at = now;
    }
  }
  leave();
}

// Where others want the cores, a yield costs a time slice, a hundred times what sleeping does: then
// no spinning for a while, and for longer each time.
void fabric_core::yield(steady::time_point now) {
  sched_yield();
  if (steady::now() - now > yield_takes_at_most) {
    spin_again_ = now + spin_rest_;
    spin_rest_ = std::min<steady::duration>(2 * spin_rest_, spin_rests_at_most);
  } else if (now - spin_again_ > spin_rests_at_most) {
    spin_rest_ = spin_rests_first;
  }
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
      endpoints_->send(*to, std::move(frame));
    else
      frame.to->in_flight_.fetch_sub(frame.charged);
  }
  running_.clear();
  return true;
}

// False when there was something to do first.
bool fabric_core::sleep() {
  sleeping_.store(true);
  if (queued_.load() || memory_back_.load()) {
    sleeping_.store(false);
    return false;
  }
  if (!endpoints_->arm()) {
    sleeping_.store(false);
    // Frames wait until their receiver has room, of which no event tells. Who sleeps gets the core
    // back sooner than who yields.
    std::this_thread::sleep_for(nap);
    return false;
  }
  const bool timed = !connections_.empty() || accept_paused_ || endpoints_->unsettled();
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(last_tick_ + tick_ - steady::now());
  poll_lanes(timed ? static_cast<int>(std::max<std::int64_t>(left.count(), 0)) : -1);
  sleeping_.store(false);
  if (!timed) last_tick_ = steady::now();  // nobody was waited for
  return true;
}

void fabric_core::poll_lanes(int timeout_ms) {
  std::array<epoll_event, 64> events;
  const int count =
      epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  for (int i = 0; i < count; ++i) {
    const auto& e = events[static_cast<std::size_t>(i)];
    if (e.data.ptr == &endpoints_) continue;  // the loop looks anyway
    if (e.data.ptr == &bell_) {
      std::uint64_t rings = 0;
      if (read(bell_.get(), &rings, sizeof rings) < 0) continue;
    } else if (e.data.ptr == &listener_) {
      accept_all();
    } else {
      serve_lane(*static_cast<connection*>(e.data.ptr), (e.events & ~EPOLLOUT) != 0);
    }
  }
  reap();  // no event of this round names one of them any more
}

void fabric_core::keep_time(steady::time_point now) {
  // Who was stopped itself must not blame others for the silence.
  const bool was_stopped = now - last_tick_ > std::max<steady::duration>(2 * tick_, 200ms);
  last_tick_ = now;
  if (accept_paused_) {
    accept_paused_ = false;
    watch_fd(epoll_.get(), listener_.get(), &listener_, EPOLLIN, EPOLL_CTL_MOD);
  }
  const bytes ping = encode_record(record_kind::ping, {});
  for (const auto& one : connections_) {
    if (one->failed) continue;
    if (!one->who) {
      if (now - one->began > options_.handshake_within) {
        ++dropped_joins_;
        one->fail({errc::timed_out,
                   fmt::format("no handshake within {}", seconds(options_.handshake_within)), ""});
      }
      continue;
    }
    if (was_stopped) one->heard = now;
    if (one->farewell && now >= one->farewell_ends)
      one->fail({errc::unavailable, "it left: " + one->farewell->reason, ""});
    if (now - one->heard > options_.silent_after)
      one->fail({errc::timed_out, fmt::format("silent for {}", seconds(now - one->heard)), ""});
    else if (one->lane.bytes_unsent() < max_unsent_control)
      if (auto sent = one->lane.send(ping); !sent) one->fail(sent.error());
  }
  endpoints_->settle(now);
  unknown_frames_ = endpoints_->unknown_frames();
  reap();
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
  for (const auto& one : connections_)
    if (one->who && !one->failed) up.push_back(one.get());
  endpoints_->flush(up, until);
  for (auto* one : up) {
    const auto said = one->lane.send(
        encode_record(record_kind::bye, encode_body(bye{one->frames_out, farewell_})));
    if (!said) one->fail(said.error());
  }
  while (steady::now() < until && std::ranges::any_of(up, [](auto* one) { return !one->failed; })) {
    endpoints_->progress();
    for (auto* one : up)
      if (auto got = one->lane.receive(); !got)
        one->fail(got.error());
      else
        for (auto next = one->lane.next(); next && *next;) next = one->lane.next();
    sched_yield();
  }
  for (auto it = connections_.begin(); it != connections_.end();) {
    endpoints_->disconnect(**it);
    if ((*it)->who) {
      (*it)->who->gone_ = true;
      (*it)->who->connection_ = nullptr;
    } else if ((*it)->dialled) {
      (*it)->dialled(error{errc::unavailable, "this node shuts down", ""});
    }
    it = connections_.erase(it);
  }
  endpoints_->settle(steady::now() + leaving_takes_at_most);
  endpoints_.reset();
}

// --- connections --------------------------------------------------------------------------------

void fabric_core::accept_all() {
  for (int i = 0; i < 64; ++i) {
    file_descriptor socket(
        accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket) {
      if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ECONNABORTED)
        return;
      // No descriptors left: strangers make room, and the port rests until the next tick.
      make_room_for_stranger();
      accept_paused_ = true;
      watch_fd(epoll_.get(), listener_.get(), &listener_, 0, EPOLL_CTL_MOD);
      return;
    }
    if (half_open() >= options_.half_open_max) make_room_for_stranger();
    auto& on = add(control_lane(std::move(socket)), handshake::role::listener);
    watch(on);
  }
}

int fabric_core::half_open() const {
  return static_cast<int>(std::ranges::count_if(
      connections_, [](const auto& one) { return !one->who && !one->dialled && !one->failed; }));
}

void fabric_core::make_room_for_stranger() {
  for (const auto& one : connections_) {  // the oldest stands first
    if (one->who || one->dialled || one->failed || one->proven()) continue;
    ++dropped_joins_;
    one->fail({errc::overloaded, "others came while it had not said who it is", ""});
    return;
  }
}

connection& fabric_core::add(control_lane lane, handshake::role side) {
  connections_.push_back(std::make_unique<connection>(std::move(lane)));
  auto& made = *connections_.back();
  made.shake = std::make_unique<handshake>(side, own_, random_nonce());
  made.began = made.heard = steady::now();
  half_open_ = static_cast<std::uint64_t>(half_open());
  return made;
}

void fabric_core::watch(connection& on) {
  watch_fd(epoll_.get(), on.lane.fd(), &on, EPOLLIN, EPOLL_CTL_ADD);
}

void fabric_core::start_dial(const address& where, std::function<void(result<peer_ptr>)> done) {
  if (auto trusted = check_trust(where, options_.secret); !trusted) return done(trusted.error());
  if (where == own_.self.listen)
    return done(
        error{errc::conflict, fmt::format("{} is this node itself", where.to_string()), ""});
  auto lane = control_lane::dial(where);
  if (!lane) return done(lane.error());
  auto& on = add(*std::move(lane), handshake::role::dialler);
  on.dialled_to = where;
  on.dialled = std::move(done);
  watch_fd(epoll_.get(), on.lane.fd(), &on, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
  // The greeting waits in the lane until the connection stands.
  if (auto sent = on.lane.send(on.shake->greeting()); !sent) on.fail(sent.error());
}

void fabric_core::serve_lane(connection& on, bool readable) {
  if (on.failed) return;
  if (auto sent = on.lane.flush(); !sent) return on.fail(sent.error());
  if (readable) {
    const auto received = on.lane.receive();
    while (!on.failed) {
      auto next = on.lane.next();
      if (!next) {
        ++refused_joins_;
        if (!on.who) {
          const auto said = on.lane.send(
              encode_record(record_kind::refusal, encode_refusal(next.error().detail)));
          if (!said) return on.fail(said.error());
        }
        return on.fail({errc::bad_request, "it sent " + next.error().detail, ""});
      }
      if (!*next) break;
      on.heard = steady::now();
      take_record(on, **next);
    }
    if (!received) {
      // What its farewell counts may still be on the data lane.
      if (on.farewell && !on.failed) {
        epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, on.lane.fd(), nullptr);
        return;
      }
      return on.fail(received.error());
    }
  }
  watch_fd(epoll_.get(), on.lane.fd(), &on, on.lane.wants_to_write() ? EPOLLIN | EPOLLOUT : EPOLLIN,
           EPOLL_CTL_MOD);
}

void fabric_core::take_record(connection& on, const record& what) {
  if (!on.who) return take_handshake(on, what);
  switch (what.kind) {
    case record_kind::ping:
    case record_kind::ready:
      return;  // ready: a frame was faster
    case record_kind::bye: {
      auto said = decode_bye(what.body);
      if (!said) return on.fail(said.error());
      on.farewell = *std::move(said);
      on.farewell_ends = steady::now() + last_frames_take_at_most;
      return;
    }
    case record_kind::refusal: {
      const auto reason = decode_refusal(what.body);
      return on.fail({errc::unavailable, "it refused: " + (reason ? *reason : ""), ""});
    }
    default:
      return on.fail({errc::bad_request, "it sent a record that does not belong here", ""});
  }
}

void fabric_core::take_handshake(connection& on, const record& what) {
  bytes answer;
  const auto taken = on.shake->take(what, answer);
  if (!taken) {
    ++refused_joins_;
    if (const auto sent = on.lane.send(answer); !sent) return on.fail(sent.error());
    return on.fail(taken.error());
  }
  // The endpoint stands before the peer may use it.
  if (on.proven() && on.endpoint == nullptr && !connect_proven(on)) return;
  if (const auto sent = on.lane.send(answer); !sent) return on.fail(sent.error());
  if (on.shake->now() == handshake::state::done) come_up(on);
}

bool fabric_core::connect_proven(connection& on) {
  const auto refuse = [&](error why) {
    ++refused_joins_;
    const auto said = on.lane.send(encode_record(record_kind::refusal, encode_refusal(why.detail)));
    on.fail(said ? std::move(why) : said.error());
    return false;
  };
  if (peers_ >= static_cast<std::uint64_t>(options_.peers_max))
    return refuse(
        {errc::overloaded, fmt::format("{} peers are connected already", peers_.load()), ""});
  if (auto made = endpoints_->connect(on); !made) return refuse(made.error());
  return true;
}

// True when frames of it may be delivered.
bool fabric_core::come_up(connection& on) {
  if (on.who) return true;
  if (on.failed || on.shake->now() != handshake::state::done) return false;
  const bool dialled = on.dialled != nullptr;
  // It would not come a second time if the first connection were any good.
  for (const auto& one : connections_)
    if (one->who && one->who->dialled() == dialled && one->who->node() == on.shake->peer())
      one->fail({errc::unavailable, "it connected anew", ""});
  on.who = std::make_shared<peer>(on.shake->peer(), dialled);
  on.who->connection_ = &on;
  on.heard = steady::now();
  ++peers_;
  half_open_ = static_cast<std::uint64_t>(half_open());
  events_.peer_up(on.who);
  if (auto done = std::exchange(on.dialled, nullptr)) done(on.who);
  return true;
}

void fabric_core::reap() {
  for (auto it = connections_.begin(); it != connections_.end();) {
    auto& on = **it;
    if (on.farewell && !on.failed && on.frames_in >= on.farewell->frames_sent &&
        on.arriving.empty())
      on.fail({errc::unavailable, "it left: " + on.farewell->reason, ""});
    const auto which = it++;
    if (on.failed) remove(which);
  }
}

void fabric_core::remove(std::list<std::unique_ptr<connection>>::iterator which) {
  auto on = std::move(*which);
  connections_.erase(which);
  error why = *on->failed;
  // Its own last words explain more than a broken endpoint does.
  if (on->who && !on->farewell && on->lane.receive().has_value() == false)
    for (auto next = on->lane.next(); next && *next; next = on->lane.next())
      if ((**next).kind == record_kind::bye)
        if (const auto said = decode_bye((**next).body))
          why = {errc::unavailable, "it left: " + said->reason, ""};
  if (on->farewell) why = {errc::unavailable, "it left: " + on->farewell->reason, ""};
  endpoints_->disconnect(*on);
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, on->lane.fd(), nullptr);
  half_open_ = static_cast<std::uint64_t>(half_open());
  if (!on->who) {
    why.detail = on->dialled ? fmt::format("{}: {}", on->dialled_to.to_string(), why.detail)
                             : fmt::format("a node that joined: {}", why.detail);
    log_debug("{}", why.detail);
    if (on->dialled) on->dialled(why);
    return;
  }
  --peers_;
  on->who->gone_ = true;
  on->who->connection_ = nullptr;
  why.detail = fmt::format("{}: {}", on->who->node().listen.to_string(), why.detail);
  log_info("peer {} is gone: {}", on->who->node().to_string(), on->failed->detail);
  events_.peer_gone(on->who, why);
}

}  // namespace tandem::transport
