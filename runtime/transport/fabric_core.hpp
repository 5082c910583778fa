// The progress thread: commands in, both lanes of every peer, time. It looks for a while after
// there was something to do (spin_window) and then sleeps in epoll on UCX, the connections and its
// own bell. The loop is in fabric_core.cpp, the connections are in fabric_lanes.cpp.
#pragma once

#include "runtime/transport/data_lane.hpp"
#include "runtime/transport/spin_window.hpp"

#include <list>
#include <mutex>
#include <thread>
#include <variant>

namespace tandem::transport {

class fabric_core {
 public:
  static result<std::unique_ptr<fabric_core>> open(fabric_options options, fabric_events& events);
  ~fabric_core();

  void close(std::string reason);
  const node_identity& self() const { return own_.self; }
  const fabric_options& options() const { return options_; }
  const std::shared_ptr<buffer_pool>& buffers() const { return pool_; }
  fabric_counts counts() const;

  void dial(const address& where, std::function<void(result<peer_ptr>)> done);
  result<void> send(const peer_ptr& to, bytes body, std::vector<buffer_ptr> attachments,
                    bool must_go);
  result<void> check_size(std::size_t body_bytes, std::span<const buffer_ptr> attachments) const;
  void drop(const peer_ptr& who, std::string reason);
  void post(std::function<void()> call);

 private:
  using command = std::variant<outgoing, std::function<void()>>;

  fabric_core(fabric_options options, fabric_events& events);
  result<void> start();
  result<void> start_lanes();
  void ring();
  bool push(command what);

  void run();
  bool run_commands();
  bool sleep();
  void nap(steady::duration most);
  void poll_lanes(int timeout_ms);
  void keep_time(steady::time_point now);
  void look_after(connection& on, steady::time_point now);
  void leave();

  void accept_all();
  void start_dial(const address& where, std::function<void(result<peer_ptr>)> done);
  connection& add(control_lane lane, handshake::role side);
  void watch(void* what, int fd, std::uint32_t events, int how);
  void serve_lane(connection& on, bool readable);
  void take_record(connection& on, const record& what);
  void take_ping(connection& on, const record& what);
  void take_handshake(connection& on, const record& what);
  bool connect_proven(connection& on);
  result<bytes> open_data_lane(connection& on);
  void give_up_lane(connection& on);
  void settle_given_up(steady::time_point now);
  bool progress();
  bool arm();
  bool in_transit() const;
  bool retry_memory();
  bool come_up(connection& on);
  void reap();  // what failed or said farewell
  void remove(std::list<std::unique_ptr<connection>>::iterator which);
  void make_room_for_stranger();
  int half_open() const;

  fabric_options options_;
  fabric_events& events_;
  credentials own_;
  file_descriptor listener_;
  file_descriptor epoll_;
  file_descriptor bell_;
  std::shared_ptr<ucx_context> context_;
  std::shared_ptr<buffer_pool> pool_;
  data_lane::hooks hooks_;
  std::list<std::unique_ptr<connection>> connections_;
  std::uint64_t unknown_before_ = 0;                    // frames, of lanes that were given up
  std::vector<data_lane*> lanes_;                       // of connections
  std::list<std::unique_ptr<data_lane>> given_up_;      // until UCX has finished with them
  std::vector<std::unique_ptr<data_lane>> unfinished_;  // with which it never will
  bool reap_due_ = false;
  bool accept_paused_ = false;
  spin_window spin_;
  int naps_ = 0;  // below 0: looks before the first
  steady::time_point last_tick_;
  steady::duration tick_;
  bool closing_ = false;
  std::string farewell_;

  std::mutex mutex_;
  std::vector<command> queue_;
  std::vector<command> running_;
  bool closed_ = false;  // nothing is queued any more
  std::atomic<bool> queued_{false};
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> needs_memory_{false};  // a frame waits for the pool
  std::atomic<bool> memory_back_{false};
  std::atomic<std::uint64_t> refused_joins_{0};
  std::atomic<std::uint64_t> dropped_joins_{0};
  std::atomic<std::uint64_t> unknown_frames_{0};
  std::atomic<std::uint64_t> half_open_{0};
  std::atomic<std::uint64_t> peers_{0};
  std::thread thread_;
};

}  // namespace tandem::transport
