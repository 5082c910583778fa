#include "gateway/upload.hpp"

#include <boost/asio/post.hpp>

#include <exception>

namespace tandem::gateway {

namespace {

namespace asio = boost::asio;

// A sink's exception (no memory, most likely) is this request's failure and nobody else's.
template <class Work>
result<void> guarded(Work work) {
  try {
    return work();
  } catch (const std::exception& why) {
    return error{errc::internal, std::string("The body could not be taken: ") + why.what(), {}};
  }
}

}  // namespace

upload::upload(asio::thread_pool& pool, std::shared_ptr<body_sink> sink,
               std::shared_ptr<std::atomic<int>> open, std::function<void()> told)
    : strand_(asio::make_strand(pool)),
      sink_(std::move(sink)),
      open_(std::move(open)),
      told_(std::move(told)) {
  ++*open_;
}

upload::~upload() { --*open_; }

void upload::write(std::string piece) {
  waiting_ += piece.size();
  asio::post(strand_, [self = shared_from_this(), piece = std::move(piece)] {
    if (self->sink_ && !self->failure())
      if (const auto taken = guarded([&] { return self->sink_->write(piece); }); !taken)
        self->fail(taken.error());
    self->waiting_ -= piece.size();
    self->told_();
  });
}

void upload::finish(std::function<void(result<std::shared_ptr<body_sink>>)> then) {
  asio::post(strand_, [self = shared_from_this(), then = std::move(then)] {
    if (const auto why = self->failure()) return then(*why);
    if (const auto done = guarded([&] { return self->sink_->finish(); }); !done)
      return then(done.error());
    then(self->sink_);
  });
}

void upload::abandon() {
  asio::post(strand_, [self = shared_from_this()] { self->sink_ = nullptr; });
}

std::optional<error> upload::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void upload::fail(const error& why) {
  {
    const std::lock_guard lock(mutex_);
    failure_ = why;
  }
  sink_ = nullptr;  // it undoes what it did before the client hears of it
}

}  // namespace tandem::gateway
