// A body on its way from a connection to its sink: pieces wait in order for a thread of the disk
// pool. The connection counts what waits and stops reading when that is too much.
#pragma once

#include "gateway/http.hpp"

#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace tandem::gateway {

class upload final : public std::enable_shared_from_this<upload> {
 public:
  // Bytes that make one piece, and how many may wait.
  static constexpr std::size_t piece_bytes = 64 << 10;
  static constexpr std::size_t waiting_bytes_max = 256 << 10;

  // `told` is called on the pool after each piece; `open` counts the uploads there are.
  upload(boost::asio::thread_pool& pool, std::shared_ptr<body_sink> sink,
         std::shared_ptr<std::atomic<int>> open, std::function<void()> told);
  ~upload();
  upload(const upload&) = delete;
  upload& operator=(const upload&) = delete;

  void write(std::string piece);
  // After the last piece: the sink is finished and `then` called with it, or with its refusal.
  void finish(std::function<void(result<std::shared_ptr<body_sink>>)> then);
  // Lets the sink go, on the pool: what it has to undo may take a while.
  void abandon();

  std::size_t waiting_bytes() const { return waiting_; }
  std::optional<error> failure() const;  // of a piece; those behind it are dropped

 private:
  void fail(const error& why);

  boost::asio::strand<boost::asio::thread_pool::executor_type> strand_;
  std::shared_ptr<body_sink> sink_;  // touched on the strand
  const std::shared_ptr<std::atomic<int>> open_;
  const std::function<void()> told_;
  std::atomic<std::size_t> waiting_{0};
  mutable std::mutex mutex_;
  std::optional<error> failure_;
};

}  // namespace tandem::gateway
