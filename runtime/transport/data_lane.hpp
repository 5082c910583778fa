// The data lane of one connection: a UCX worker, its endpoint, and the frames that are on their
// way.
//
// Each peer has a worker of its own because those that share memory write into one ring of their
// receiver's: one that is killed in the middle of a word leaves a hole which its receiver waits at
// for ever, and with it whoever else writes there.
#pragma once

#include "runtime/transport/connection.hpp"

#include <list>
#include <memory>
#include <vector>

namespace tandem::transport {

class data_lane {
 public:
  struct hooks {
    // A frame with the right token, before it is looked at: false drops it.
    std::function<bool(connection&)> accepts;
    std::function<void(connection&, std::span<const char> body, std::vector<buffer_ptr>)> arrived;
    std::function<void()> needs_memory;  // from now on: retry_memory when the pool has some
  };

  static result<std::unique_ptr<data_lane>> open(std::shared_ptr<ucx_context> context,
                                                 std::shared_ptr<buffer_pool> pool,
                                                 const fabric_options& options, const hooks& calls);
  ~data_lane();

  int event_fd() const { return event_fd_; }
  const bytes& worker_address() const { return worker_address_; }
  std::uint64_t unknown_frames() const { return unknown_frames_; }

  bool progress() { return ucp_worker_progress(worker_) != 0; }
  // False: there is something to do first.
  bool arm() { return ucp_worker_arm(worker_) == UCS_OK; }

  result<void> connect(connection& to);  // its handshake has proven the peer
  void send(outgoing frame);
  // Receives frames whose memory had to wait. True: some still have to.
  bool retry_memory();
  // Frames are under way, so there will soon be something to do.
  bool in_transit() const { return !going_.empty() || receiving_ > 0; }
  void begin_flush();
  bool flushed();     // what was sent before has left
  void disconnect();  // at once; nothing is delivered any more
  // After that: lets UCX finish with what was given up. True once it has, and a while later in any
  // case: UCX 1.13 now and then loses the end of a send or a receive over shared memory with a
  // process that was killed. Buffers are the pool's again then; what UCX may still look at stays.
  bool settle(steady::time_point now);
  // Nothing was lost: it may be destroyed while the others live.
  bool clean() const { return going_.empty() && coming_.empty() && closing_ == nullptr; }

 private:
  data_lane(std::shared_ptr<ucx_context> context, std::shared_ptr<buffer_pool> pool,
            const fabric_options& options, const hooks& calls);
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
  void deliver();
  void finish(outgoing& frame);
  void release_buffers();

  const std::shared_ptr<ucx_context> context_;
  const std::shared_ptr<buffer_pool> pool_;
  const frame_bounds bounds_;
  const std::uint64_t arriving_max_;  // bytes of one peer that may wait here
  const hooks& calls_;                // of the fabric, which outlives it
  ucp_worker_h worker_ = nullptr;
  int event_fd_ = -1;
  std::size_t header_max_ = 0;
  bytes worker_address_;
  connection* on_ = nullptr;  // none: not connected yet, or given up
  std::list<outgoing> going_;
  std::list<incoming> coming_;
  void* flushing_ = nullptr;  // requests of UCX
  void* closing_ = nullptr;
  steady::time_point given_up_;
  int waiting_ = 0;    // frames in state no_memory
  int receiving_ = 0;  // that UCX still writes to
  std::uint64_t unknown_frames_ = 0;
};

}  // namespace tandem::transport
