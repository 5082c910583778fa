#include "gateway/process_signals.hpp"

#include "kernels/ensure.hpp"

#include <csignal>
#include <utility>

#include <pthread.h>
#include <unistd.h>

namespace tandem::gateway {
namespace {

using namespace std::chrono_literals;

constexpr int status_of_second_signal = 1;
constexpr auto look_again = 20ms;  // for conditions that nobody wakes us for

sigset_t watched_signals(bool own) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  if (own) sigaddset(&set, SIGUSR2);  // our own way to end the listener
  return set;
}

}  // namespace

process_signals::process_signals() {
  std::signal(SIGPIPE, SIG_IGN);
  const auto set = watched_signals(true);
  ensure(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0, "signals cannot be blocked");
  listener_ = std::thread([this] { listen(); });
}

process_signals::~process_signals() {
  pthread_kill(listener_.native_handle(), SIGUSR2);
  listener_.join();
}

void process_signals::listen() {
  const auto set = watched_signals(true);
  for (int signal = 0; sigwait(&set, &signal) == 0 && signal != SIGUSR2;) {
    const std::lock_guard lock(mutex_);
    if (++signals_ == 2) _exit(status_of_second_signal);
    changed_.notify_all();
  }
}

process_signals::outcome process_signals::wait(const std::function<bool()>& condition) {
  std::unique_lock lock(mutex_);
  while (true) {
    if (!why_.empty()) return outcome::broken;
    if (signals_ > 0) return outcome::ask_to_end;
    lock.unlock();
    const bool holds = condition();
    lock.lock();
    if (holds) return outcome::holds;
    changed_.wait_for(lock, look_again);
  }
}

process_signals::outcome process_signals::wait_until(std::chrono::steady_clock::time_point deadline,
                                                     const std::function<bool()>& condition) {
  std::unique_lock lock(mutex_);
  while (true) {
    if (!why_.empty()) return outcome::broken;
    lock.unlock();
    const bool holds = condition();
    lock.lock();
    if (holds) return outcome::holds;
    if (std::chrono::steady_clock::now() >= deadline) return outcome::too_late;
    changed_.wait_for(lock, look_again);
  }
}

void process_signals::wake() {
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

void process_signals::broken(std::string why) {
  const std::lock_guard lock(mutex_);
  if (why_.empty()) why_ = std::move(why);
  changed_.notify_all();
}

std::string process_signals::why() const {
  const std::lock_guard lock(mutex_);
  return why_;
}

}  // namespace tandem::gateway
