// The data lane: the UCX worker, its endpoints, and the frames that are on their way. It knows
// nothing of handshakes: it sends for connections that have an endpoint and hands up what arrives
// with a known token.
#pragma once

#include "runtime/transport/connection.hpp"

#include <unordered_map>

namespace tandem::transport {

class endpoint_set {
 public:
  struct hooks {
    // A frame of a known token, before it is looked at: false drops it.
    std::function<bool(connection&)> accepts;
    std::function<void(connection&, std::span<const char> body, std::vector<buffer_ptr>)> arrived;
    std::function<void()> needs_memory;  // from now on: retry_memory when the pool has some
  };

  static result<std::unique_ptr<endpoint_set>> open(std::shared_ptr<ucx_context> context,
                                                    std::shared_ptr<buffer_pool> pool,
                                                    const fabric_options& options, hooks calls);
  ~endpoint_set();

  int event_fd() const { return event_fd_; }
  const bytes& worker_address() const { return worker_address_; }
  std::uint64_t unknown_frames() const { return unknown_frames_; }

  bool progress() { return ucp_worker_progress(worker_) != 0; }
  // False: there is something to do first.
  bool arm() { return ucp_worker_arm(worker_) == UCS_OK; }

  result<void> connect(connection& to);  // its handshake has proven the peer
  void send(connection& to, outgoing frame);
  // Receives frames whose memory had to wait. True: some still have to.
  bool retry_memory();
  // Frames are under way, so there will soon be something to do.
  bool in_transit() const { return !going_.empty() || receiving_ > 0; }
  void disconnect(connection& from);  // at once; nothing of it is delivered any more
  void flush(const std::vector<connection*>& all, steady::time_point until);
  // Something that was given up is not finished yet.
  bool unsettled() const { return !closing_.empty(); }
  // Lets UCX finish with what was given up.
  void settle(steady::time_point until);

 private:
  endpoint_set(std::shared_ptr<ucx_context> context, std::shared_ptr<buffer_pool> pool,
               const fabric_options& options, hooks calls);
  result<void> open_worker();
  static ucs_status_t on_message(void* self, const void* header, std::size_t header_bytes,
                                 void* data, std::size_t data_bytes,
                                 const ucp_am_recv_param_t* param);
  static void on_sent(void* request, ucs_status_t status, void* frame);
  static void on_received(void* request, ucs_status_t status, std::size_t length, void* frame);
  static void on_error(void* connection, ucp_ep_h endpoint, ucs_status_t status);
  ucs_status_t take(std::span<const char> header, void* data, std::size_t data_bytes,
                    bool rendezvous);
  void copy_eager(incoming& frame, std::span<const char> data);
  bool start_receive(incoming& frame);
  void deliver(connection& from);
  void finish(outgoing& frame);

  const std::shared_ptr<ucx_context> context_;
  const std::shared_ptr<buffer_pool> pool_;
  const frame_bounds bounds_;
  const std::uint64_t arriving_max_;  // bytes of one peer that may wait here
  hooks calls_;
  ucp_worker_h worker_ = nullptr;
  int event_fd_ = -1;
  std::size_t header_max_ = 0;
  bytes worker_address_;
  std::unordered_map<std::uint64_t, connection*> by_token_;
  std::list<outgoing> going_;
  std::list<incoming> coming_;
  std::vector<void*> closing_;
  int waiting_ = 0;    // frames in state no_memory
  int receiving_ = 0;  // that UCX still writes to
  std::uint64_t unknown_frames_ = 0;
};

}  // namespace tandem::transport
